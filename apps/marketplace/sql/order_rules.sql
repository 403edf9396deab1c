-- What holds for quotes and orders even against raw SQL, and what follows from each of their changes.

ALTER TABLE marketplace_quote
  ADD CONSTRAINT quote_total CHECK (rate > 0 AND seconds > 0 AND total = rate * seconds AND deposit >= 0),
  ADD CONSTRAINT quote_kind_fits CHECK (kind IN ('on_demand', 'spot', 'reserved') AND (kind = 'spot') = (bid IS NOT NULL)),
  ADD CONSTRAINT quote_state_fits CHECK (state IN ('open', 'accepted', 'expired', 'forfeited') AND (state = 'open') = (resolved_at IS NULL));

ALTER TABLE marketplace_order
  ADD CONSTRAINT order_total CHECK (rate > 0 AND seconds > 0 AND total = rate * seconds),
  ADD CONSTRAINT order_parties CHECK (client_id <> provider_id),
  ADD CONSTRAINT order_kind_known CHECK (kind IN ('on_demand', 'spot', 'reserved', 'auction')),
  ADD CONSTRAINT order_started_whole CHECK ((started_at IS NULL) = (stream IS NULL)),
  ADD CONSTRAINT order_ended_whole CHECK ((ended_at IS NULL) = (ended_by = '')),
  ADD CONSTRAINT order_state_fits CHECK (CASE state
    WHEN 'accepted' THEN started_at IS NULL AND ended_at IS NULL WHEN 'active' THEN started_at IS NOT NULL AND ended_at IS NULL
    WHEN 'notice' THEN ended_at IS NULL WHEN 'completed' THEN started_at IS NOT NULL AND ended_at IS NOT NULL AND refunded = 0
    WHEN 'missed' THEN started_at IS NULL AND ended_at IS NOT NULL AND refunded = total
    WHEN 'failed' THEN started_at IS NOT NULL AND ended_at IS NOT NULL
    WHEN 'canceled' THEN ended_at IS NOT NULL WHEN 'evicted' THEN ended_at IS NOT NULL ELSE false END),
  ADD CONSTRAINT order_money_whole CHECK (
    paid >= 0 AND fee >= 0 AND refunded >= 0 AND paid + fee + refunded = CASE WHEN ended_at IS NULL THEN 0 ELSE total END),
  ADD CONSTRAINT order_credit_reserved CHECK (credit >= 0 AND credit <= max_credit AND (max_credit > 0) = (bond_hold IS NOT NULL)),
  ADD CONSTRAINT order_compensation CHECK (compensation >= 0);

-- How an order ended is final, and so are its terms.
CREATE OR REPLACE FUNCTION order_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'order % is over, or its terms are agreed', OLD.id USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER order_over_once BEFORE UPDATE ON marketplace_order FOR EACH ROW WHEN (
  (OLD.ended_at IS NOT NULL AND (NEW.state, NEW.ended_at, NEW.ended_by, NEW.total, NEW.paid, NEW.fee, NEW.refunded)
    IS DISTINCT FROM (OLD.state, OLD.ended_at, OLD.ended_by, OLD.total, OLD.paid, OLD.fee, OLD.refunded))
  OR (OLD.credit IS NOT NULL AND NEW.credit IS DISTINCT FROM OLD.credit)
  OR (OLD.compensation IS NOT NULL AND NEW.compensation IS DISTINCT FROM OLD.compensation)
  OR (NEW.client_id, NEW.provider_id, NEW.miner_id, NEW.offer_id, NEW.rate, NEW.fee_bps)
    IS DISTINCT FROM (OLD.client_id, OLD.provider_id, OLD.miner_id, OLD.offer_id, OLD.rate, OLD.fee_bps))
  EXECUTE FUNCTION order_guard();

-- When the SLA of an order that is over is measured: when the last signatures are in.
CREATE OR REPLACE FUNCTION order_credit_at(o marketplace_order) RETURNS timestamptz LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN o.bond_hold IS NOT NULL AND o.credit IS NULL THEN o.ended_at + interval '1 second' * CASE
    WHEN o.state IN ('completed', 'evicted') OR o.ended_by = 'client' THEN parameter_value('sla_settle_seconds') ELSE 0 END END
$$;

-- When the timer must look at an order; NULL: nothing is left to do.
CREATE OR REPLACE FUNCTION order_due(o marketplace_order) RETURNS timestamptz LANGUAGE sql STABLE AS $$
  SELECT CASE o.state WHEN 'accepted' THEN o.start_deadline WHEN 'active' THEN o.ends_at WHEN 'notice' THEN o.ends_at ELSE least(
    order_credit_at(o),
    CASE WHEN o.evicted_by IS NOT NULL AND o.compensation IS NULL THEN (
      SELECT coalesce(x.ended_at, x.started_at + parameter_value('spot_window_seconds') * interval '1 second', x.start_deadline)
        FROM marketplace_order x WHERE x.id = o.evicted_by) END,
    o.move_at) END
$$;
CREATE OR REPLACE FUNCTION order_arm() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.due_at := order_due(NEW);
  RETURN NEW;
END $$;
CREATE TRIGGER order_armed BEFORE INSERT OR UPDATE OF state, start_deadline, ends_at, credit, compensation, move_at ON marketplace_order
  FOR EACH ROW EXECUTE FUNCTION order_arm();

-- What both parties hear (events of `aitbc.webhooks`), in the transaction of the change. `order.notice` is the hook to write
-- a checkpoint: the devices are there until `ends_at`.
CREATE OR REPLACE FUNCTION order_told() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM webhooks_tell('order.' || NEW.state, 'order:' || NEW.id, ARRAY[NEW.client_id, NEW.provider_id], jsonb_build_object(
    'id', NEW.id, 'kind', NEW.kind, 'state', NEW.state, 'offer', NEW.offer_id, 'miner', NEW.miner_id, 'started_at', NEW.started_at,
    'ends_at', NEW.ends_at, 'ended_at', NEW.ended_at, 'ended_by', nullif(NEW.ended_by, ''), 'reason', nullif(NEW.reason, ''),
    'moved_from', NEW.moved_from));
  IF NEW.ended_at IS NOT NULL THEN
    PERFORM trading_announce('marketplace.order_ended', 'order:' || NEW.id, jsonb_build_object('order', NEW.id, 'state', NEW.state));
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER order_told AFTER INSERT OR UPDATE OF state ON marketplace_order FOR EACH ROW EXECUTE FUNCTION order_told();

CREATE INDEX IF NOT EXISTS heartbeat_by_time ON gpu_heartbeat (miner_id, received_at);
