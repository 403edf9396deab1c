-- The life of an order: accepted -> active -> completed, or canceled, missed, failed, or by notice evicted. The money waits in a
-- hold, from the start on in a stream that pays the provider by the second; each end settles all of it in one call of the ledger.
-- What an end leaves to do (SLA credit, compensation, going on elsewhere) the timer does in transactions of their own.
-- Rows are found by an index, also by a session that planned while the tables were still empty.
-- Lock order: the order, its devices (`gpu_take_turns`), then its stream, holds, accounts by id.

-- Its miner is not there, or has one of the devices no longer.
CREATE OR REPLACE FUNCTION order_gone(o marketplace_order) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT m.state IN ('dead', 'offline', 'suspended') OR EXISTS (SELECT FROM gpu_device d WHERE d.id = ANY (o.devices) AND NOT d.active)
    FROM gpu_miner m WHERE m.id = o.miner_id
$$;

-- The end, with the caller's lock. Paid until p_moment; of what is left the provider keeps p_keep_bps.
CREATE OR REPLACE FUNCTION order_finish(
  o marketplace_order, p_state text, p_by text, p_reason text, p_moment timestamptz, p_keep_bps int DEFAULT 0
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE s trading_stream; kept numeric := div(o.total * p_keep_bps, 10000); charged numeric := div(kept * o.fee_bps + 9999, 10000);
BEGIN
  PERFORM gpu_vacate(o.id, p_moment);
  IF o.stream IS NOT NULL THEN
    s := stream_finish(o.stream, p_moment, p_keep_bps);
  ELSE
    s.paid := kept - charged; s.fees := charged; s.returned := o.total - kept;
    PERFORM order_ledger_all(o.id, CASE WHEN kept = 0 THEN jsonb_build_array(jsonb_build_object('action', 'void', 'hold', o.hold, 'kind', 'order.refund')) ELSE (
      SELECT jsonb_agg(x) FROM (VALUES
        (jsonb_build_object('action', 'post', 'hold', o.hold, 'credit', ledger_account(o.provider_id, 'AIT', 'available'), 'amount', s.paid, 'kind', 'order.kept')),
        (jsonb_build_object('action', 'post', 'hold', o.hold, 'credit', ledger_account(NULL, 'AIT', 'fees', '', pg_backend_pid() % 16), 'amount', s.fees, 'kind', 'order.fee'))
        ) v(x) WHERE (x->>'amount')::numeric > 0) END);
  END IF;
  UPDATE marketplace_order SET state = p_state, ended_by = p_by, ended_at = p_moment, reason = CASE WHEN p_reason = '' THEN reason ELSE p_reason END,
         paid = s.paid, fee = s.fees, refunded = s.returned,
         move_at = CASE WHEN failover AND (p_state IN ('missed', 'failed', 'evicted') OR p_by = 'provider') THEN clock_timestamp() END
   WHERE id = o.id;
END $$;

-- The miner says that the devices are ready: from now on it is paid. A repeat answers the same.
CREATE OR REPLACE FUNCTION order_start(p_key uuid, p_order uuid) RETURNS text LANGUAGE plpgsql
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE o marketplace_order; m gpu_miner; s uuid := uuidv7(); moment timestamptz;
BEGIN
  SELECT * INTO m FROM gpu_miner WHERE key_id = p_key;
  SELECT * INTO o FROM marketplace_order WHERE id = p_order AND miner_id = m.id FOR UPDATE;
  moment := clock_timestamp();
  IF NOT FOUND THEN PERFORM trading_refuse(404, 'order.unknown', 'this miner has no such order');
  ELSIF o.started_at IS NOT NULL AND o.ended_at IS NULL THEN RETURN order_document(o)::text;
  ELSIF o.state <> 'accepted' THEN PERFORM trading_refuse(409, 'order.' || o.state, 'this order is ' || o.state);
  ELSIF moment < o.starts_at THEN PERFORM trading_refuse(409, 'order.too_early', 'this order begins later, see its starts_at');
  ELSIF moment >= o.start_deadline THEN PERFORM trading_refuse(409, 'order.missed', 'this order was to be started earlier');
  ELSIF order_gone(o) THEN PERFORM trading_refuse(409, 'miner.gone', 'this miner is ' || m.state || ', or lacks a device of the order');
  END IF;
  PERFORM gpu_take_turns(o.devices);
  PERFORM pg_advisory_xact_lock(hashtextextended(o.client_id::text, 12));   -- as `stream_open`, but before his account is locked
  PERFORM order_ledger_all(o.id, jsonb_build_array(jsonb_build_object('action', 'void', 'hold', o.hold, 'kind', 'order.start')));
  PERFORM stream_open(s, o.client_id, ARRAY[o.provider_id], ARRAY[o.rate], o.total, 0, 0, 0, 'AIT', o.fee_bps, o.id);
  SELECT x.settled_at, x.ends_at INTO o.started_at, o.ends_at FROM trading_stream x WHERE x.id = s;
  PERFORM gpu_occupy_until(o.id, o.ends_at);
  UPDATE marketplace_order SET state = 'active', stream = s, started_at = o.started_at, ends_at = o.ends_at WHERE id = o.id RETURNING * INTO o;
  RETURN order_document(o)::text;
END $$;

-- By its client: what is unused returns, up to the share that the platform lets providers keep. By its provider, or by the
-- platform (p_user NULL): all of it. A second cancel changes nothing.
CREATE OR REPLACE FUNCTION order_cancel(p_user uuid, p_order uuid, p_reason text) RETURNS text LANGUAGE plpgsql
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE o marketplace_order; who text;
BEGIN
  SELECT * INTO o FROM marketplace_order WHERE id = p_order AND (p_user IS NULL OR p_user IN (client_id, provider_id)) FOR UPDATE;
  who := CASE p_user WHEN o.client_id THEN 'client' WHEN o.provider_id THEN 'provider' ELSE 'platform' END;
  IF NOT FOUND THEN PERFORM trading_refuse(404, 'order.unknown', 'you have no such order');
  ELSIF o.state = 'canceled' THEN RETURN order_document(o)::text;
  ELSIF o.ended_at IS NOT NULL OR o.ends_at <= clock_timestamp() AND o.started_at IS NOT NULL THEN
    PERFORM trading_refuse(409, 'order.final', 'this order is over');
  ELSIF who = 'client' AND order_gone(o) AND o.started_at IS NOT NULL THEN
    PERFORM order_turn(o);   -- he need not pay for leaving a miner that has left
  ELSE
    PERFORM order_finish(o, 'canceled', who, coalesce(nullif(p_reason, ''), 'canceled by its ' || who), clock_timestamp(),
      CASE WHEN who = 'client' AND o.state <> 'notice' THEN (10000 - parameter_value('cancel_refund_bps'))::int ELSE 0 END);
  END IF;
  RETURN order_shown(p_user, p_order);
END $$;

-- More seconds at the same rate, while the devices are free, the offer is listed and costs no more. The SLA's highest credit
-- stays what was reserved.
CREATE OR REPLACE FUNCTION order_extend(p_client uuid, p_order uuid, p_seconds int) RETURNS text LANGUAGE plpgsql
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE o marketplace_order; f marketplace_offer;
BEGIN
  SELECT * INTO o FROM marketplace_order WHERE id = p_order AND client_id = p_client FOR UPDATE;
  IF NOT FOUND THEN PERFORM trading_refuse(404, 'order.unknown', 'you have no such order');
  ELSIF o.state <> 'active' OR o.ends_at <= clock_timestamp() THEN PERFORM trading_refuse(409, 'order.not_active', 'only an active order is extended');
  END IF;
  SELECT * INTO f FROM marketplace_offer WHERE id = o.offer_id;
  IF f.state <> 'listed' OR (o.kind <> 'auction' AND (order_rate(f, o.kind, o.bid) <= o.rate) IS NOT TRUE) THEN
    PERFORM trading_refuse(409, 'order.price', 'the offer is not sold at this price any more: ask for a quote');
  ELSIF o.seconds + p_seconds > f.max_seconds THEN
    PERFORM trading_refuse(422, 'order.seconds', 'the offer is let for ' || f.max_seconds || ' seconds at most', 'seconds');
  END IF;
  PERFORM gpu_take_turns(o.devices);
  o.ends_at := stream_prolong(o.stream, o.rate * p_seconds);
  BEGIN
    PERFORM gpu_occupy_until(o.id, o.ends_at);
  EXCEPTION WHEN exclusion_violation THEN PERFORM trading_refuse(409, 'order.taken', 'the devices are promised to somebody else then');
  END;
  UPDATE marketplace_order SET seconds = seconds + p_seconds, total = total + rate * p_seconds, ends_at = o.ends_at WHERE id = o.id;
  RETURN order_shown(p_client, p_order);
END $$;

-- What the time asks of an order that the caller has locked -> what was done.
CREATE OR REPLACE FUNCTION order_turn(o marketplace_order) RETURNS text LANGUAGE plpgsql AS $$
DECLARE moment timestamptz := clock_timestamp(); resumed timestamptz; lead interval := parameter_value('order_start_seconds') * interval '1 second';
BEGIN
  IF o.ended_at IS NULL AND o.started_at IS NULL AND o.state = 'notice' THEN
    PERFORM order_finish(o, 'evicted', 'platform', '', moment);
    RETURN 'evicted';
  ELSIF o.state = 'accepted' AND o.start_deadline <= moment THEN
    SELECT max(x.ended_at) INTO resumed FROM core_platform_outage x WHERE x.process = 'relay' AND tstzrange(x.began_at, x.ended_at) && tstzrange(o.starts_at, moment);
    IF resumed + lead > moment THEN   -- it could not reach us: it has all of its time again
      BEGIN
        PERFORM gpu_occupy_until(o.id, resumed + lead + o.seconds * interval '1 second');
        UPDATE marketplace_order SET start_deadline = resumed + lead WHERE id = o.id;
        RETURN 'postponed';
      EXCEPTION WHEN exclusion_violation THEN NULL;   -- then nobody is at fault
      END;
    END IF;
    PERFORM order_finish(o, 'missed', CASE WHEN resumed IS NULL THEN 'provider' ELSE 'platform' END,
      'the miner did not start within ' || parameter_value('order_start_seconds') || ' seconds; all of it was refunded', moment);
    RETURN 'missed';
  ELSIF o.state IN ('active', 'notice') AND order_gone(o) THEN   -- paid for until it was last heard of
    PERFORM order_finish(o, 'failed', 'provider', 'the miner left; the rest was refunded',
      least(greatest(o.started_at, (SELECT last_seen_at FROM gpu_miner WHERE id = o.miner_id)), o.ends_at, moment));
    RETURN 'failed';
  ELSIF o.ended_at IS NULL AND o.ends_at <= moment AND o.started_at IS NOT NULL THEN
    -- A notice may end with the lease itself: then it lost nothing.
    PERFORM order_finish(o, CASE WHEN stream_lasts(o) THEN 'evicted' ELSE 'completed' END, 'platform', '', o.ends_at);
    RETURN (SELECT state FROM marketplace_order WHERE id = o.id);
  ELSIF order_credit_at(o) <= moment THEN
    RETURN order_credit(o);
  ELSIF o.move_at <= moment THEN
    RETURN order_move_on(o);
  ELSIF o.ended_at IS NOT NULL AND o.evicted_by IS NOT NULL AND o.compensation IS NULL THEN
    RETURN order_compensate(o);
  END IF;
  UPDATE marketplace_order SET due_at = greatest(order_due(o), moment + interval '1 second') WHERE id = o.id;
  RETURN 'waiting';
END $$;

-- Whether the lease's stream would go on after the order's end, because the order ends by notice.
CREATE OR REPLACE FUNCTION stream_lasts(o marketplace_order) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT ends_at > o.ends_at FROM trading_stream WHERE id = o.stream
$$;

-- Credits by measured availability, of an order's total, in basis points (the table in docs/market.md); an order that its
-- provider did not start or did not finish gets a tenth at least.
CREATE OR REPLACE FUNCTION sla_share(p_availability_bps int, p_promised_bps int, p_broken boolean) RETURNS int LANGUAGE sql IMMUTABLE AS $$
  SELECT greatest(CASE WHEN p_availability_bps IS NULL OR p_availability_bps >= p_promised_bps THEN 0 WHEN p_availability_bps >= 9900 THEN 1000
                       WHEN p_availability_bps >= 9500 THEN 2500 ELSE 5000 END, CASE WHEN p_broken THEN 1000 ELSE 0 END)
$$;

-- Whole minutes of a lease from its start, and in how many of them its miner was heard: a heartbeat arrived, covered by a
-- signature (its own, or one of a later beat of the chain) within 90 seconds after the minute. Minutes that an outage of the
-- platform touches count for nobody. A lease that its provider broke off is measured to its agreed end.
CREATE OR REPLACE FUNCTION order_minutes(o marketplace_order) RETURNS TABLE (counted int, good int) LANGUAGE sql STABLE AS $$
  SELECT count(*)::int, (count(*) FILTER (WHERE m.upto <= o.ended_at AND EXISTS (
           SELECT FROM gpu_heartbeat h JOIN gpu_heartbeat s ON s.miner_id = h.miner_id AND s.sequence >= h.sequence AND s.signature <> ''
              AND s.received_at >= h.received_at AND s.received_at < m.upto + interval '90 seconds'
            WHERE h.miner_id = o.miner_id AND h.received_at >= m.since AND h.received_at < m.upto)))::int
    FROM (SELECT o.started_at + k * interval '1 minute' AS since, o.started_at + (k + 1) * interval '1 minute' AS upto
            FROM generate_series(0, floor(extract(epoch FROM CASE WHEN o.ended_by = 'provider' THEN o.started_at + o.seconds * interval '1 second'
                                                                  ELSE o.ended_at END - o.started_at) / 60)::int - 1) k) m
   WHERE NOT EXISTS (SELECT FROM core_platform_outage x WHERE x.process = 'relay' AND tstzrange(x.began_at, x.ended_at) && tstzrange(m.since, m.upto))
$$;

-- The SLA credit of an order that is over, in units, recomputed from the signed log; never more than was reserved.
CREATE OR REPLACE FUNCTION order_sla(p_order uuid) RETURNS numeric LANGUAGE sql STABLE AS $$
  SELECT least(o.max_credit, div(o.total * sla_share(CASE WHEN m.counted > 0 THEN m.good * 10000 / m.counted END, o.sla_bps, o.ended_by = 'provider'), 10000))
    FROM marketplace_order o LEFT JOIN LATERAL order_minutes(o) m ON o.started_at IS NOT NULL WHERE o.id = p_order AND o.ended_at IS NOT NULL
$$;

CREATE OR REPLACE FUNCTION order_credit(o marketplace_order) RETURNS text LANGUAGE plpgsql AS $$
DECLARE owed numeric := coalesce(order_sla(o.id), 0);
BEGIN
  UPDATE marketplace_order SET credit = owed WHERE id = o.id;
  PERFORM order_ledger_all(o.id, jsonb_build_array(CASE WHEN owed > 0 THEN jsonb_build_object(
      'action', 'post', 'hold', o.bond_hold, 'credit', order_account(o.client_id, 'available'), 'amount', owed, 'kind', 'sla.credit')
    ELSE jsonb_build_object('action', 'void', 'hold', o.bond_hold, 'kind', 'sla.kept') END));
  RETURN 'credited';
END $$;

-- What the platform pays to one that was evicted: the price of `spot_compensation_seconds`, out of the fees that its evictor paid
-- in his first window, and never more than those (protocols 24).
CREATE OR REPLACE FUNCTION order_compensate(o marketplace_order) RETURNS text LANGUAGE plpgsql AS $$
DECLARE x marketplace_order; s trading_stream; moment timestamptz := clock_timestamp(); amount numeric := 0; a record; items jsonb := '[]';
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended(o.evicted_by::text, 24));   -- one victim of an evictor at a time
  SELECT * INTO STRICT x FROM marketplace_order WHERE id = o.evicted_by;
  IF x.ended_at IS NULL AND (x.started_at IS NULL OR x.started_at + parameter_value('spot_window_seconds') * interval '1 second' > moment) THEN
    UPDATE marketplace_order SET due_at = greatest(order_due(o), moment + interval '1 second') WHERE id = o.id;
    RETURN 'waiting';
  ELSIF x.started_at IS NOT NULL THEN
    SELECT * INTO s FROM trading_stream WHERE id = x.stream;
    IF s.state = 'open' AND s.settled_at < x.started_at + parameter_value('spot_window_seconds') * interval '1 second' THEN
      PERFORM stream_settle(NULL, x.stream);   -- a call of the ledger: the next turn pays
      UPDATE marketplace_order SET due_at = moment + CASE WHEN s.ends_at > moment THEN 0 ELSE 1 END * interval '1 second' WHERE id = o.id;
      RETURN 'settled';
    END IF;
    SELECT least(o.rate * parameter_value('spot_compensation_seconds'), s.fees - coalesce(sum(compensation), 0)) INTO amount
      FROM marketplace_order WHERE evicted_by = x.id;
  END IF;
  UPDATE marketplace_order SET compensation = amount WHERE id = o.id;
  FOR a IN SELECT id, least(posted - held, amount - sum(posted - held) OVER (ORDER BY id) + posted - held) AS part
             FROM trading_account WHERE kind = 'fees' AND asset_id = 'AIT' AND chain = '' AND posted > held ORDER BY id LOOP
    CONTINUE WHEN a.part <= 0;
    items := items || jsonb_build_object('action', 'transfer', 'debit', a.id, 'credit', order_account(o.client_id, 'available'),
                                         'amount', a.part, 'kind', 'spot.compensation');
  END LOOP;
  IF (SELECT coalesce(sum((i->>'amount')::numeric), 0) FROM jsonb_array_elements(items) i) <> amount THEN
    RAISE EXCEPTION 'the fees do not hold the compensation of %', o.id USING ERRCODE = 'integrity_constraint_violation';
  ELSIF items <> '[]' THEN
    PERFORM order_ledger_all(o.id, items);
  END IF;
  RETURN 'compensated';
END $$;

-- The rest of an order that ended before its time, with the next best offer of the same hardware that costs no more a second.
CREATE OR REPLACE FUNCTION order_move(p_client uuid, p_order uuid) RETURNS text LANGUAGE plpgsql
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE o marketplace_order; f marketplace_offer; q marketplace_quote; ask jsonb; moment timestamptz; lead interval;
BEGIN
  SELECT * INTO o FROM marketplace_order WHERE id = p_order AND (p_client IS NULL OR client_id = p_client) FOR UPDATE;
  moment := clock_timestamp();
  lead := parameter_value('order_start_seconds') * interval '1 second';
  IF NOT FOUND THEN PERFORM trading_refuse(404, 'order.unknown', 'you have no such order');
  ELSIF o.moved_to IS NOT NULL THEN PERFORM trading_refuse(409, 'order.moved', 'this order went on as ' || o.moved_to);
  END IF;
  q.seconds := o.seconds - floor(extract(epoch FROM coalesce(o.ended_at - o.started_at, interval '0')));
  IF o.ended_at IS NULL OR q.seconds < 1 OR (o.state NOT IN ('missed', 'failed', 'evicted') AND o.ended_by <> 'provider') THEN
    PERFORM trading_refuse(409, 'order.not_movable', 'only what its provider, a higher bid or a missed start ended goes on elsewhere');
  END IF;
  q.kind := CASE o.kind WHEN 'spot' THEN 'spot' ELSE 'on_demand' END;
  ask := jsonb_build_object('wants', o.wants, 'type', q.kind, 'bid', o.bid, 'seconds', q.seconds, 'max_rate', o.rate,
    'avoid', CASE WHEN o.ended_by = 'provider' THEN o.miner_id END);
  q.id := uuidv7();
  f := order_pick(q.id, o.client_id, ask, moment, moment + lead + q.seconds * interval '1 second');
  IF f.id IS NULL THEN PERFORM trading_refuse(409, 'quote.no_match', 'no other offer of this hardware is free at this price'); END IF;
  q.offer_id := f.id; q.devices := offer_devices(f.id); q.client_id := o.client_id; q.rate := order_rate(f, q.kind, o.bid);
  q.total := q.rate * q.seconds; q.fee_bps := order_fee_bps(f, q.kind); q.bid := o.bid; q.wants := o.wants; q.failover := o.failover;
  q.starts_at := moment;
  PERFORM order_place(q, NULL, o.id);
  UPDATE marketplace_order SET moved_to = q.id, move_at = NULL WHERE id = o.id;
  RETURN order_shown(p_client, q.id);
END $$;

-- The timer's move: tried again for ten minutes; what moved five times stays.
CREATE OR REPLACE FUNCTION order_move_on(o marketplace_order) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  IF (WITH RECURSIVE chain AS (SELECT o.moved_from AS id, 1 AS n UNION ALL
        SELECT x.moved_from, n + 1 FROM chain JOIN marketplace_order x USING (id) WHERE n < 9) SELECT max(n) FROM chain) > 5 THEN
    PERFORM trading_refuse(409, 'order.not_movable', 'this order has moved often enough');
  END IF;
  PERFORM order_move(NULL, o.id);
  RETURN 'moved';
EXCEPTION WHEN SQLSTATE 'AI409' THEN
  UPDATE marketplace_order SET move_at = CASE WHEN clock_timestamp() < ended_at + interval '10 minutes' AND SQLERRM <> 'order.not_movable'
    THEN clock_timestamp() + interval '10 seconds' END WHERE id = o.id;
  RETURN 'not_moved';
END $$;

-- The timer: does what the most overdue order needs and says what that was; NULL when none is due.
-- An order that cannot be handled waits a minute, is announced and does not keep the others.
CREATE OR REPLACE FUNCTION order_next() RETURNS text LANGUAGE plpgsql
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE o marketplace_order;
BEGIN
  SELECT * INTO o FROM marketplace_order WHERE due_at <= clock_timestamp() ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN RETURN NULL; END IF;
  BEGIN
    RETURN order_turn(o);
  EXCEPTION WHEN integrity_constraint_violation OR data_exception OR SQLSTATE 'AI409' OR SQLSTATE 'AI422' THEN
    RAISE WARNING 'order %: %', o.id, SQLERRM;
    UPDATE marketplace_order SET due_at = clock_timestamp() + interval '1 minute' WHERE id = o.id;
    PERFORM trading_announce('marketplace.order_stuck', 'order:' || o.id, jsonb_build_object('order', o.id, 'why', SQLERRM));
    RETURN 'stuck';
  END;
END $$;

-- A miner left or changed: its running orders are looked at now; what waits for its start waits on.
CREATE OR REPLACE FUNCTION orders_of_gone(p_miner uuid) RETURNS bigint LANGUAGE sql VOLATILE AS $$
  WITH running AS (SELECT id FROM marketplace_order WHERE miner_id = p_miner AND state IN ('active', 'notice') ORDER BY id FOR UPDATE),
  due AS (UPDATE marketplace_order o SET due_at = clock_timestamp() FROM running WHERE o.id = running.id RETURNING 1)
  SELECT count(*) FROM due
$$;

-- As its client and its provider see it, brought up to date. p_user NULL: the platform.
CREATE OR REPLACE FUNCTION order_shown(p_user uuid, p_order uuid) RETURNS text LANGUAGE plpgsql
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE o marketplace_order;
BEGIN
  SELECT * INTO o FROM marketplace_order WHERE id = p_order AND (p_user IS NULL OR p_user IN (client_id, provider_id));
  IF NOT FOUND THEN PERFORM trading_refuse(404, 'order.unknown', 'you have no such order'); END IF;
  IF o.ended_at IS NULL AND o.due_at <= clock_timestamp() THEN
    SELECT * INTO o FROM marketplace_order WHERE id = p_order FOR UPDATE;
    IF o.ended_at IS NULL AND o.due_at <= clock_timestamp() THEN PERFORM order_turn(o); END IF;
    SELECT * INTO o FROM marketplace_order WHERE id = p_order;
  END IF;
  RETURN order_document(o)::text;
END $$;

CREATE OR REPLACE FUNCTION order_document(o marketplace_order) RETURNS json LANGUAGE sql STABLE AS $$
  SELECT json_build_object(
    'id', o.id, 'type', o.kind, 'state', o.state, 'offer_id', o.offer_id, 'miner_id', o.miner_id, 'devices', o.devices,
    'client', o.client_id, 'provider', o.provider_id, 'rate', ait_money(o.rate), 'seconds', o.seconds, 'total', ait_money(o.total),
    'paid', ait_money(o.paid), 'fee', ait_money(o.fee), 'refunded', ait_money(o.refunded), 'stream', o.stream,
    'bid', ait_money(o.bid), 'failover', o.failover, 'starts_at', o.starts_at, 'start_deadline', o.start_deadline, 'started_at', o.started_at,
    'ends_at', o.ends_at, 'ended_at', o.ended_at, 'ended_by', nullif(o.ended_by, ''), 'reason', nullif(o.reason, ''),
    'sla', CASE WHEN o.bond_hold IS NOT NULL THEN json_build_object('availability', o.sla_bps / 10000.0, 'max_credit', ait_money(o.max_credit),
       'credit', ait_money(o.credit)) END,
    'evicted_by', o.evicted_by IS NOT NULL, 'compensation', ait_money(o.compensation), 'moved_from', o.moved_from, 'moved_to', o.moved_to,
    'created_at', o.created_at)
$$;

-- A page of somebody's orders, newest first, with the sums of all that the filters leave.
CREATE OR REPLACE FUNCTION orders_of(
  p_client uuid, p_provider uuid, p_key uuid, p_state text, p_kind text, p_offer uuid, p_before uuid, p_limit int
) RETURNS text LANGUAGE sql VOLATILE AS $$
  WITH mine AS (
    SELECT o.* FROM marketplace_order o
     WHERE (p_client IS NULL OR o.client_id = p_client) AND (p_provider IS NULL OR o.provider_id = p_provider)
       AND (p_key IS NULL OR o.miner_id = (SELECT id FROM gpu_miner WHERE key_id = p_key))
       AND (p_state IS NULL OR o.state = p_state) AND (p_kind IS NULL OR o.kind = p_kind) AND (p_offer IS NULL OR o.offer_id = p_offer)),
  found AS (SELECT o.id, o, row_number() OVER (ORDER BY o.id DESC) AS nth FROM marketplace_order o
             WHERE o.id IN (SELECT id FROM mine WHERE p_before IS NULL OR id < p_before ORDER BY id DESC LIMIT p_limit + 1))
  SELECT json_build_object(
    'items', coalesce((SELECT json_agg(order_document(o) ORDER BY nth) FROM found WHERE nth <= p_limit), '[]'),
    'next', (SELECT id FROM found WHERE nth = p_limit AND EXISTS (SELECT FROM found WHERE nth > p_limit)),
    'sums', (SELECT json_build_object('orders', count(*), 'seconds', coalesce(sum(seconds), 0), 'total', ait_money(coalesce(sum(total), 0)),
       'paid', ait_money(coalesce(sum(paid), 0)), 'fee', ait_money(coalesce(sum(fee), 0)), 'refunded', ait_money(coalesce(sum(refunded), 0)),
       'credit', ait_money(coalesce(sum(credit), 0)), 'compensation', ait_money(coalesce(sum(compensation), 0))) FROM mine))::text
$$;

-- For the audit: an order's escrow, stream and bond say what the order says.
CREATE OR REPLACE FUNCTION audit_orders() RETURNS SETOF text LANGUAGE sql STABLE AS $$
  SELECT o.id::text FROM marketplace_order o
    LEFT JOIN trading_stream s ON s.id = o.stream LEFT JOIN trading_transfer h ON h.id = o.hold LEFT JOIN trading_transfer b ON b.id = o.bond_hold
   WHERE (h.state = 'pending') IS DISTINCT FROM (o.started_at IS NULL AND o.ended_at IS NULL) OR h.amount > o.total
      OR (o.bond_hold IS NOT NULL AND ((b.state = 'pending') IS DISTINCT FROM (o.credit IS NULL) OR b.amount IS DISTINCT FROM o.max_credit))
      OR (s.id IS NULL) <> (o.stream IS NULL)
      OR (s.id IS NOT NULL AND (s.keeper IS DISTINCT FROM o.id OR s.deposited <> o.total OR (s.state = 'open' AND o.ended_at IS NOT NULL)
          OR (o.ended_at IS NOT NULL AND (s.paid, s.fees, s.returned) IS DISTINCT FROM (o.paid, o.fee, o.refunded))))
$$;
