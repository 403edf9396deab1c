-- The second person (protocols 9): rules that hold whoever writes the rows.

-- Whether `p_person` asked for the withdrawal or payout batch `p_id`, or gets anything of it: by name, or at an
-- address that is known as his.
CREATE OR REPLACE FUNCTION review_is_of(p_id uuid, p_person uuid) RETURNS boolean
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
  WITH part(person, address) AS (
    SELECT user_id, address FROM trading_withdrawal WHERE id = p_id
    UNION ALL SELECT user_id, address FROM trading_payoutleaf WHERE batch_id = p_id),
  mine(address) AS (
    SELECT address FROM trading_payouttarget WHERE user_id = p_person
    UNION ALL SELECT address FROM trading_depositaddress WHERE user_id = p_person
    UNION ALL SELECT address FROM trading_withdrawal WHERE user_id = p_person)
  SELECT EXISTS (SELECT 1 FROM part WHERE person = p_person OR address IN (SELECT address FROM mine))
$$;

-- What is reviewed never changes, an approval is given once, and not by who takes part.
CREATE OR REPLACE FUNCTION trading_review_guard() RETURNS trigger
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
  facts text[] := ARRAY['id', 'network', 'user_id', 'address', 'amount', 'root', 'total', 'count'];
BEGIN
  IF EXISTS (SELECT 1 FROM unnest(facts) f WHERE to_jsonb(NEW) -> f IS DISTINCT FROM to_jsonb(OLD) -> f) THEN
    RAISE EXCEPTION 'what is asked of the chain never changes' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  IF OLD.approved_by_id IS NOT NULL
     AND (NEW.approved_by_id, NEW.approved_at, NEW.approval, NEW.review_until)
         IS DISTINCT FROM (OLD.approved_by_id, OLD.approved_at, OLD.approval, OLD.review_until) THEN
    RAISE EXCEPTION 'an approval is given once' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  IF OLD.approved_by_id IS NULL AND NEW.approved_by_id IS NOT NULL AND review_is_of(NEW.id, NEW.approved_by_id) THEN
    RAISE EXCEPTION 'the approver takes part in it' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  IF OLD.state = 'review' AND NEW.state NOT IN ('review', 'lapsed', 'canceled') AND NEW.approved_by_id IS NULL THEN
    RAISE EXCEPTION 'nobody approved it' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  IF OLD.review_until IS NOT NULL AND NEW.review_until IS NULL THEN
    RAISE EXCEPTION 'a review is not taken back' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER withdrawal_review BEFORE UPDATE ON trading_withdrawal
  FOR EACH ROW EXECUTE FUNCTION trading_review_guard();
CREATE OR REPLACE TRIGGER payoutbatch_review BEFORE UPDATE ON trading_payoutbatch
  FOR EACH ROW EXECUTE FUNCTION trading_review_guard();

-- An approval does not come with the row either: who asks writes it, and approves nothing.
CREATE OR REPLACE FUNCTION trading_review_begins() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.approved_by_id IS NOT NULL OR (NEW.review_until IS NOT NULL AND NEW.state <> 'review') THEN
    RAISE EXCEPTION 'a review begins without an approval' USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER withdrawal_review_begins BEFORE INSERT ON trading_withdrawal
  FOR EACH ROW EXECUTE FUNCTION trading_review_begins();
CREATE OR REPLACE TRIGGER payoutbatch_review_begins BEFORE INSERT ON trading_payoutbatch
  FOR EACH ROW EXECUTE FUNCTION trading_review_begins();
