-- Models and data sets for sale: their tables, which only `licences.sql` writes.

CREATE TABLE marketplace_asset (
  id uuid PRIMARY KEY,
  owner_id uuid NOT NULL REFERENCES accounts_user,
  artifact bytea NOT NULL REFERENCES gpu_artifact,
  name varchar(100) NOT NULL,
  kind varchar(7) NOT NULL CHECK (kind IN ('model', 'dataset')),
  reference jsonb,                        -- {input, expected, tolerance}: what its owner says that it computes
  listed boolean NOT NULL DEFAULT true,
  created_at timestamptz NOT NULL
);
CREATE INDEX asset_of_artifact ON marketplace_asset (artifact);
CREATE INDEX asset_listed ON marketplace_asset (id DESC) WHERE listed;

-- What may be bought: never changed, so that nobody pays another price than he saw.
CREATE TABLE marketplace_plan (
  id uuid PRIMARY KEY,
  asset_id uuid NOT NULL REFERENCES marketplace_asset,
  type varchar(11) NOT NULL CHECK (type IN ('commercial', 'research', 'educational', 'custom')),
  terms varchar(2000) NOT NULL,
  rights varchar(40)[] NOT NULL,          -- of a custom one: the purposes it allows
  days int CHECK (days > 0),              -- null: for good
  price numeric(38, 0) NOT NULL CHECK (price >= 0)
);
CREATE INDEX plan_of_asset ON marketplace_plan (asset_id);

CREATE TABLE marketplace_royalty (
  asset_id uuid REFERENCES marketplace_asset,
  tier varchar(40),
  payee_id uuid NOT NULL REFERENCES accounts_user,
  bps int NOT NULL CHECK (bps BETWEEN 1 AND 10000),
  PRIMARY KEY (asset_id, tier)
);
CREATE OR REPLACE FUNCTION marketplace_royalties_fit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM marketplace_royalty WHERE asset_id IN (SELECT asset_id FROM added) GROUP BY asset_id HAVING sum(bps) > 10000) THEN
    PERFORM trading_refuse(422, 'royalty.too_much', 'the royalties of an asset exceed 100 %', 'royalties');
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER royalties_fit AFTER INSERT ON marketplace_royalty
  REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION marketplace_royalties_fit();

CREATE TABLE marketplace_bundle (
  id uuid PRIMARY KEY,
  owner_id uuid NOT NULL REFERENCES accounts_user,
  name varchar(100) NOT NULL,
  price numeric(38, 0) NOT NULL CHECK (price >= 0),
  plans uuid[] NOT NULL CHECK (cardinality(plans) BETWEEN 2 AND 20)
);

-- A transaction, by the id that its buyer gave it: what it cost is the fee and the shares.
CREATE TABLE marketplace_sale (
  id uuid PRIMARY KEY,
  buyer_id uuid NOT NULL REFERENCES accounts_user,
  seller_id uuid NOT NULL REFERENCES accounts_user,
  item uuid NOT NULL,                     -- the plan or the bundle
  price numeric(38, 0) NOT NULL,
  fee_bps int NOT NULL,
  fee numeric(38, 0) NOT NULL CHECK (fee BETWEEN 0 AND price),
  created_at timestamptz NOT NULL
);
CREATE TABLE marketplace_sale_share (
  sale_id uuid REFERENCES marketplace_sale,
  asset_id uuid REFERENCES marketplace_asset,
  tier varchar(40),                       -- empty: the owner's
  payee_id uuid NOT NULL REFERENCES accounts_user,
  amount numeric(38, 0) NOT NULL CHECK (amount >= 0),
  PRIMARY KEY (sale_id, asset_id, tier)
);
CREATE TABLE marketplace_licence (
  id uuid PRIMARY KEY,
  sale_id uuid NOT NULL REFERENCES marketplace_sale,
  plan_id uuid NOT NULL REFERENCES marketplace_plan,
  asset_id uuid NOT NULL REFERENCES marketplace_asset,
  holder_id uuid NOT NULL REFERENCES accounts_user,
  issued_at timestamptz NOT NULL,
  expires_at timestamptz,
  revoked_at timestamptz,
  reason varchar(300),
  CHECK ((revoked_at IS NULL) = (reason IS NULL)),
  UNIQUE (sale_id, plan_id)
);
CREATE INDEX licence_of_holder ON marketplace_licence (holder_id, asset_id);

CREATE TRIGGER plan_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON marketplace_plan FOR EACH STATEMENT EXECUTE FUNCTION trading_refuse_change();
CREATE TRIGGER royalty_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON marketplace_royalty FOR EACH STATEMENT EXECUTE FUNCTION trading_refuse_change();
CREATE TRIGGER bundle_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON marketplace_bundle FOR EACH STATEMENT EXECUTE FUNCTION trading_refuse_change();
CREATE TRIGGER sale_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON marketplace_sale FOR EACH STATEMENT EXECUTE FUNCTION trading_refuse_change();
CREATE TRIGGER sale_share_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON marketplace_sale_share FOR EACH STATEMENT EXECUTE FUNCTION trading_refuse_change();
CREATE TRIGGER licence_stays BEFORE DELETE OR TRUNCATE ON marketplace_licence FOR EACH STATEMENT EXECUTE FUNCTION trading_refuse_change();
CREATE TRIGGER licence_revoked_once BEFORE UPDATE ON marketplace_licence
  FOR EACH ROW WHEN (OLD.revoked_at IS NOT NULL) EXECUTE FUNCTION trading_over_guard();
