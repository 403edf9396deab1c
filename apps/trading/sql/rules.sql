-- Rules that hold even against raw SQL of the owner's role.

CREATE OR REPLACE FUNCTION trading_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'rows of % stay', TG_TABLE_NAME USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE OR REPLACE TRIGGER entry_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON trading_entry
  FOR EACH STATEMENT EXECUTE FUNCTION trading_refuse_change();
CREATE OR REPLACE TRIGGER transfer_never_deleted BEFORE DELETE OR TRUNCATE ON trading_transfer
  FOR EACH STATEMENT EXECUTE FUNCTION trading_refuse_change();
CREATE OR REPLACE TRIGGER account_never_deleted BEFORE DELETE OR TRUNCATE ON trading_account
  FOR EACH STATEMENT EXECUTE FUNCTION trading_refuse_change();
CREATE OR REPLACE TRIGGER payment_never_deleted BEFORE DELETE OR TRUNCATE ON trading_payment
  FOR EACH STATEMENT EXECUTE FUNCTION trading_refuse_change();

-- Debits equal credits per transfer: all legs come in one INSERT, checked once per statement.
CREATE OR REPLACE FUNCTION trading_entries_balance() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT 1 FROM added GROUP BY transfer_id HAVING sum(amount) <> 0) THEN
    RAISE EXCEPTION 'entries of a transfer do not sum to zero' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER entries_balance AFTER INSERT ON trading_entry
  REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION trading_entries_balance();

-- A transfer's facts never change, and it leaves `pending` once.
CREATE OR REPLACE FUNCTION trading_transfer_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF OLD.state <> 'pending' OR NEW.state NOT IN ('posted', 'voided', 'expired')
     OR (NEW.id, NEW.kind, NEW.debit_id, NEW.amount, NEW.created_at)
        IS DISTINCT FROM (OLD.id, OLD.kind, OLD.debit_id, OLD.amount, OLD.created_at)
     OR NEW.credit_id IS DISTINCT FROM OLD.credit_id OR NEW.hold IS DISTINCT FROM OLD.hold
     OR (NEW.reference, NEW.expires_at) IS DISTINCT FROM (OLD.reference, OLD.expires_at) OR NEW.xact <> OLD.xact THEN
    RAISE EXCEPTION 'a transfer is resolved once and never changed' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER transfer_guard BEFORE UPDATE ON trading_transfer
  FOR EACH ROW EXECUTE FUNCTION trading_transfer_guard();

-- Balance rows are rewritten for each movement: room on the page keeps those updates HOT.
ALTER TABLE trading_account SET (fillfactor = 50);
ALTER TABLE trading_transfer SET (fillfactor = 85);
