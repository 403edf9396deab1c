-- Disputes and streams, which only `disputes.sql` and `streams.sql` write, with what holds for them and for payments even
-- against raw SQL of the owner's role.

ALTER TABLE trading_payment
  ADD CONSTRAINT payment_state_fits CHECK (CASE state
    WHEN 'escrowed' THEN resolved_at IS NULL WHEN 'released' THEN refunded = 0
    WHEN 'partially_released' THEN refunded > 0 AND refunded < held
    WHEN 'refunded' THEN refunded = held WHEN 'expired' THEN refunded = held
    WHEN 'disputed' THEN released > 0 AND matured_at IS NULL ELSE false END),
  -- What an open dispute blocks has no time to mature; nor has what earned nothing.
  ADD CONSTRAINT payment_matures CHECK (
    matured_at IS NOT NULL OR (matures_at IS NOT NULL) = (released > 0 AND state <> 'disputed'));

CREATE TABLE trading_dispute (
  payment_id uuid PRIMARY KEY REFERENCES trading_payment,
  total numeric(38, 0) NOT NULL,          -- what the job had cost, its fee included, when the dispute was opened
  claimed numeric(38, 0) NOT NULL CHECK (claimed > 0 AND claimed <= total),
  reason text NOT NULL,
  opened_at timestamptz NOT NULL,
  refund numeric(38, 0) CHECK (refund >= 0 AND refund <= total),   -- to the client; the provider keeps the rest
  note text,
  resolved_by_id uuid REFERENCES accounts_user,
  resolved_at timestamptz,
  CONSTRAINT dispute_resolved_whole CHECK (num_nulls(refund, note, resolved_by_id, resolved_at) IN (0, 4))
);

CREATE TABLE trading_stream (
  id uuid PRIMARY KEY,
  owner_id uuid NOT NULL REFERENCES accounts_user,
  asset varchar(12) NOT NULL REFERENCES trading_asset,
  account_id bigint NOT NULL REFERENCES trading_account,   -- holds deposited - paid - fees - returned while it is open
  state varchar(6) NOT NULL,
  rate numeric(38, 0) NOT NULL CHECK (rate >= 0),          -- of all payees, units per second
  fee_bps smallint NOT NULL CHECK (fee_bps BETWEEN 0 AND 10000),   -- as it was when the stream was opened
  deposited numeric(38, 0) NOT NULL,
  paid numeric(38, 0) NOT NULL CHECK (paid >= 0),
  fees numeric(38, 0) NOT NULL CHECK (fees >= 0),
  returned numeric(38, 0) NOT NULL CHECK (returned >= 0),
  settled_at timestamptz NOT NULL,        -- what accrued until then is paid
  ends_at timestamptz,                    -- when funds / rate runs out
  due_at timestamptz,                     -- when the timer must look at it
  warn_seconds int NOT NULL CHECK (warn_seconds >= 0),
  warned_at timestamptz,
  topup_amount numeric(38, 0) NOT NULL CHECK (topup_amount >= 0),
  topup_cap numeric(38, 0) NOT NULL,
  topped_up numeric(38, 0) NOT NULL CHECK (topped_up BETWEEN 0 AND topup_cap),
  created_at timestamptz NOT NULL,
  closed_at timestamptz,
  CONSTRAINT stream_not_overdrawn CHECK (deposited >= paid + fees + returned),
  CONSTRAINT stream_state_fits CHECK (CASE state
    WHEN 'open' THEN closed_at IS NULL AND (ends_at IS NOT NULL) = (rate > 0) AND (due_at IS NOT NULL) = (rate > 0)
    WHEN 'closed' THEN closed_at IS NOT NULL AND due_at IS NULL AND deposited = paid + fees + returned
    WHEN 'ended' THEN closed_at >= ends_at AND due_at IS NULL AND deposited = paid + fees AND returned = 0 ELSE false END)
);
CREATE INDEX stream_of_owner ON trading_stream (owner_id, id DESC);
CREATE INDEX stream_due ON trading_stream (due_at) WHERE due_at IS NOT NULL;
-- One open stream to an escrow account.
CREATE UNIQUE INDEX stream_escrow ON trading_stream (account_id) WHERE state = 'open';

CREATE TABLE trading_stream_deposit (
  stream_id uuid REFERENCES trading_stream,
  number int,                             -- money is spent in this order
  depositor_id uuid NOT NULL REFERENCES accounts_user,
  amount numeric(38, 0) NOT NULL CHECK (amount > 0),
  returned numeric(38, 0) NOT NULL CHECK (returned BETWEEN 0 AND amount),
  automatic boolean NOT NULL,
  created_at timestamptz NOT NULL,
  PRIMARY KEY (stream_id, number)
);

CREATE TABLE trading_stream_payee (
  stream_id uuid REFERENCES trading_stream,
  payee_id uuid REFERENCES accounts_user,
  rate numeric(38, 0) NOT NULL CHECK (rate >= 0),
  paid numeric(38, 0) NOT NULL CHECK (paid >= 0),
  fee numeric(38, 0) NOT NULL CHECK (fee >= 0),
  carry int NOT NULL CHECK (carry BETWEEN 0 AND 999999),   -- what accrued beyond whole units, in millionths
  PRIMARY KEY (stream_id, payee_id)
);
CREATE INDEX stream_of_payee ON trading_stream_payee (payee_id);

-- What is over does not change again.
CREATE OR REPLACE FUNCTION trading_over_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'a row of % that is over never changes', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER dispute_resolved_once BEFORE UPDATE ON trading_dispute
  FOR EACH ROW WHEN (OLD.resolved_at IS NOT NULL) EXECUTE FUNCTION trading_over_guard();
CREATE TRIGGER stream_over_once BEFORE UPDATE ON trading_stream
  FOR EACH ROW WHEN (OLD.state <> 'open') EXECUTE FUNCTION trading_over_guard();
CREATE TRIGGER dispute_never_deleted BEFORE DELETE OR TRUNCATE ON trading_dispute
  FOR EACH STATEMENT EXECUTE FUNCTION trading_refuse_change();
CREATE TRIGGER stream_never_deleted BEFORE DELETE OR TRUNCATE ON trading_stream
  FOR EACH STATEMENT EXECUTE FUNCTION trading_refuse_change();
CREATE TRIGGER stream_deposit_never_deleted BEFORE DELETE OR TRUNCATE ON trading_stream_deposit
  FOR EACH STATEMENT EXECUTE FUNCTION trading_refuse_change();
CREATE TRIGGER stream_payee_never_deleted BEFORE DELETE OR TRUNCATE ON trading_stream_payee
  FOR EACH STATEMENT EXECUTE FUNCTION trading_refuse_change();
