-- Rules that hold even against raw SQL.

-- A device's row carries its offer's state, so that "listed once" can be a unique index over devices.
ALTER TABLE marketplace_offer_device ADD CONSTRAINT offerdevice_follows_offer
  FOREIGN KEY (offer_id, state) REFERENCES marketplace_offer (id, state) ON UPDATE CASCADE ON DELETE CASCADE;

-- Delisted is final, and an offer stays its miner's: receipts and jobs refer to what it was.
CREATE OR REPLACE FUNCTION marketplace_offer_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'a delisted offer never changes, and no offer changes its miner'
    USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER offer_guard BEFORE UPDATE ON marketplace_offer FOR EACH ROW
  WHEN (OLD.state = 'delisted' OR OLD.miner_id <> NEW.miner_id) EXECUTE FUNCTION marketplace_offer_guard();
