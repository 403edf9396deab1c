-- From a wish to a lease: quotes hold concrete devices at a price, accepting one makes the order (protocols 21, 22).
-- Rows are found by an index, also by a session that planned while the tables were still empty.
-- Lock order: the quote, orders by id, devices (`gpu_take_turns`), then holds and accounts in one call of the ledger.

-- Units a second for all devices of an offer, fees inside; NULL: not sold so. A spot lease costs what it bids, any other the
-- offer's price at the level of its region, with the region's fee on top.
CREATE OR REPLACE FUNCTION order_rate(o marketplace_offer, p_kind text, p_bid numeric) RETURNS numeric LANGUAGE sql STABLE AS $$
  SELECT o.device_count * CASE p_kind WHEN 'spot' THEN CASE WHEN p_bid >= o.spot_price THEN p_bid END
    ELSE div(CASE p_kind WHEN 'on_demand' THEN o.price WHEN 'reserved' THEN div(o.price * (10000 - o.reserved_discount_bps) + 9999, 10000) END
             * t.price_bps * (10000 + t.fee_bps) + 99999999, 100000000) END
    FROM region_terms(o.region) t
$$;

-- The platform's share of such a rate: its fee by the provider's level, of what is left beside the region's.
CREATE OR REPLACE FUNCTION order_fee_bps(o marketplace_offer, p_kind text) RETURNS int LANGUAGE sql STABLE AS $$
  SELECT div((reputation_fee_bps(m.owner_id, parameter_value('fee_bps')) + r) * 10000 + 9999 + r, 10000 + r)::int
    FROM gpu_miner m CROSS JOIN LATERAL (
      SELECT CASE WHEN p_kind = 'spot' THEN 0 ELSE (region_terms(o.region)).fee_bps END::numeric AS r) x WHERE m.id = o.miner_id
$$;

-- Which of a client's wishes a listed offer does not meet. p_ask: `wants` (model, min_vram_mb, region, kind, devices, verified,
-- max_price per device second), `type`, `bid`, `seconds`, `starts_at`, `max_rate`, `avoid` (a miner).
CREATE OR REPLACE FUNCTION offer_unmet(o marketplace_offer, p_client uuid, p_ask jsonb) RETURNS text[] LANGUAGE sql STABLE AS $$
  SELECT array_remove(ARRAY[
    CASE WHEN lower(o.model) <> lower(w->>'model') THEN 'model' END,
    CASE WHEN o.memory_mb < (w->>'min_vram_mb')::numeric THEN 'min_vram_gb' END,
    CASE WHEN o.region <> w->>'region' THEN 'region' END,
    CASE WHEN NOT w->>'kind' = ANY (o.kinds) THEN 'kind' END,
    CASE WHEN o.device_count <> (w->>'devices')::int THEN 'devices' END,
    CASE WHEN (w->>'verified')::boolean AND NOT o.verified THEN 'verified' END,
    CASE WHEN r.rate > (w->>'max_price')::numeric * o.device_count OR r.rate > (p_ask->>'max_rate')::numeric THEN 'max_price' END,
    CASE WHEN r.rate IS NULL THEN 'type' END,
    CASE WHEN (p_ask->>'seconds')::int NOT BETWEEN coalesce(o.min_seconds, 1) AND coalesce(o.max_seconds, 2147483647) THEN 'seconds' END,
    CASE WHEN o.available_from > coalesce((p_ask->>'starts_at')::timestamptz, clock_timestamp()) THEN 'starts_at' END,
    CASE WHEN m.owner_id = p_client THEN 'own' END,
    CASE WHEN m.state NOT IN ('online', 'suspect') OR m.id = (p_ask->>'avoid')::uuid THEN 'miner' END], NULL)
    FROM gpu_miner m CROSS JOIN LATERAL (SELECT order_rate(o, p_ask->>'type', (p_ask->>'bid')::numeric) AS rate) r
   CROSS JOIN LATERAL (SELECT p_ask->'wants' AS w) x WHERE m.id = o.miner_id
$$;

-- The listed offers that meet an ask, cheapest first, then oldest; p_free: with all devices free in that span.
CREATE OR REPLACE FUNCTION order_candidates(p_client uuid, p_ask jsonb, p_from timestamptz, p_until timestamptz, p_free boolean)
RETURNS SETOF marketplace_offer LANGUAGE plpgsql STABLE AS $$
BEGIN
  RETURN QUERY EXECUTE format($q$
    SELECT o.* FROM marketplace_offer o WHERE o.state = 'listed' %s %s %s AND ($2->>'offer' IS NOT NULL OR (region_terms(o.region)).open) AND offer_unmet(o, $1, $2) = '{}'
       AND $5 <> EXISTS (SELECT FROM marketplace_offer_device x JOIN gpu_occupancy c ON c.device_id = x.device_id
                          WHERE x.offer_id = o.id AND c.during && tstzrange($3, $4))
     ORDER BY %s, o.id LIMIT 20$q$,
    CASE WHEN p_ask->>'offer' IS NOT NULL THEN format('AND o.id = %L::uuid', p_ask->>'offer') END,
    CASE WHEN p_ask->'wants'->>'model' IS NOT NULL THEN format('AND lower(o.model) = lower(%L)', p_ask->'wants'->>'model') END,
    CASE WHEN p_ask->'wants'->>'region' IS NOT NULL THEN format('AND o.region = %L', p_ask->'wants'->>'region') END,
    CASE p_ask->>'type' WHEN 'spot' THEN 'o.spot_price' WHEN 'reserved' THEN 'o.price * (10000 - o.reserved_discount_bps)' ELSE 'o.price' END)
  USING p_client, p_ask, p_from, p_until, p_free;
END $$;

-- The spot orders that stand in the way of a lease from p_from on; NULL when anything else does.
-- Out of the way goes who bids less than the spot lease that comes, or all spot leases for one that is not spot.
CREATE OR REPLACE FUNCTION order_victims(p_devices uuid[], p_kind text, p_bid numeric, p_from timestamptz, p_until timestamptz)
RETURNS uuid[] LANGUAGE sql VOLATILE AS $$
  SELECT CASE WHEN count(*) = count(v.id) THEN coalesce(array_agg(DISTINCT v.id ORDER BY v.id), '{}') END
    FROM gpu_occupancy c LEFT JOIN marketplace_order v ON v.id = c.holder AND v.kind = 'spot' AND v.state IN ('accepted', 'active')
     AND (p_kind <> 'spot' OR v.bid < p_bid)
   WHERE c.device_id = ANY (p_devices) AND c.during && tstzrange(p_from, p_until)
$$;

CREATE OR REPLACE FUNCTION offer_devices(p_offer uuid) RETURNS uuid[] LANGUAGE sql STABLE AS $$
  SELECT array_agg(device_id ORDER BY device_id) FROM marketplace_offer_device WHERE offer_id = p_offer
$$;

-- Occupy the best offer for an ask -> its row; all NULL: there is none. Of two rivals the later one gets the next best.
CREATE OR REPLACE FUNCTION order_pick(p_holder uuid, p_client uuid, p_ask jsonb, p_from timestamptz, p_until timestamptz)
RETURNS marketplace_offer LANGUAGE plpgsql AS $$
DECLARE o marketplace_offer;
BEGIN
  FOR o IN SELECT * FROM order_candidates(p_client, p_ask, p_from, p_until, true) LOOP
    IF gpu_occupy(p_holder, p_client, offer_devices(o.id), p_from, p_until) = 'ok' THEN RETURN o; END IF;
  END LOOP;
  RETURN NULL;
END $$;

-- One call of the ledger: p_items of {id?, action, debit?, credit?, amount?, hold?, kind} -> a code each.
CREATE OR REPLACE FUNCTION order_ledger(p_reference uuid, p_items jsonb) RETURNS text[] LANGUAGE sql VOLATILE AS $$
  SELECT ledger_apply(array_agg(coalesce(x.id, uuidv7()) ORDER BY o), array_agg(x.action ORDER BY o), array_agg(x.debit ORDER BY o),
                      array_agg(x.credit ORDER BY o), array_agg(x.amount ORDER BY o), array_agg(x.hold ORDER BY o),
                      array_agg(x.kind ORDER BY o), array_agg(p_reference))
    FROM ROWS FROM (jsonb_to_recordset(p_items) AS (
      id uuid, action text, debit bigint, credit bigint, amount numeric, hold uuid, kind text)) WITH ORDINALITY AS x(id, action, debit, credit, amount, hold, kind, o)
$$;

-- What must not be refused: anything but ok is an exception, lack of money one of ours.
CREATE OR REPLACE FUNCTION order_ledger_all(p_reference uuid, p_items jsonb) RETURNS void LANGUAGE plpgsql AS $$
DECLARE bad text := (array_remove(order_ledger(p_reference, p_items), 'ok'))[1];
BEGIN
  IF bad IN ('insufficient_funds', 'account_unknown') THEN
    PERFORM trading_refuse(409, 'payment.insufficient_funds', 'the available balance does not cover this amount');
  ELSIF bad IS NOT NULL THEN
    RAISE EXCEPTION 'the ledger refused %: %', p_reference, bad USING ERRCODE = 'integrity_constraint_violation';
  END IF;
END $$;

CREATE OR REPLACE FUNCTION order_account(p_owner uuid, p_kind text) RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT id FROM trading_account WHERE owner_id = p_owner AND asset_id = 'AIT' AND kind = p_kind AND chain = '' AND shard = 0
$$;

-- A price for an ask, good for `quote_seconds`. Its devices are kept for it meanwhile, with time to start at the very end; where
-- spot leases would have to go, nothing is kept (`firm` is false), and whoever accepts first has them.
CREATE OR REPLACE FUNCTION quote_make(p_client uuid, p_ask jsonb) RETURNS text LANGUAGE plpgsql
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
  q marketplace_quote; o marketplace_offer; moment timestamptz := clock_timestamp(); span interval; wait interval; lead interval;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended(p_client::text, 22));   -- one at a time counts his quotes
  IF (SELECT count(*) FROM marketplace_quote WHERE client_id = p_client AND state = 'open' AND expires_at > moment)
     >= parameter_value('quotes_open') THEN
    PERFORM trading_refuse(409, 'quote.too_many', 'accept some of your open quotes, or let them expire');
  ELSIF p_ask->>'offer' IS NOT NULL AND NOT EXISTS (SELECT FROM marketplace_offer WHERE id = (p_ask->>'offer')::uuid) THEN
    PERFORM trading_refuse(404, 'offer.unknown', 'there is no such offer');
  ELSIF (p_ask->>'starts_at')::timestamptz NOT BETWEEN moment - interval '1 minute' AND moment + interval '366 days' THEN
    PERFORM trading_refuse(422, 'quote.starts_at', 'a lease begins now, or within a year', 'starts_at');
  END IF;
  wait := parameter_value('quote_seconds') * interval '1 second';
  lead := parameter_value('order_start_seconds') * interval '1 second';
  span := (p_ask->>'seconds')::int * interval '1 second';
  q.starts_at := greatest((p_ask->>'starts_at')::timestamptz, moment);
  q.id := uuidv7(); q.firm := true;
  o := order_pick(q.id, p_client, p_ask, q.starts_at, q.starts_at + wait + lead + span);
  IF o.id IS NULL THEN
    q.firm := false;
    span := span + lead + parameter_value('spot_notice_seconds') * interval '1 second';
    SELECT * INTO o FROM order_candidates(p_client, p_ask, q.starts_at, q.starts_at + span, false) c
     WHERE order_victims(offer_devices(c.id), p_ask->>'type', (p_ask->>'bid')::numeric, q.starts_at, q.starts_at + span) IS NOT NULL LIMIT 1;
    IF o.id IS NULL THEN PERFORM trading_refuse(409, 'quote.no_match', 'no listed offer meets this and is free'); END IF;
  END IF;
  q.client_id := p_client; q.offer_id := o.id; q.devices := offer_devices(o.id); q.kind := p_ask->>'type'; q.state := 'open';
  q.bid := CASE WHEN q.kind = 'spot' THEN (p_ask->>'bid')::numeric END;
  q.rate := order_rate(o, q.kind, q.bid); q.seconds := (p_ask->>'seconds')::int; q.total := q.rate * q.seconds;
  q.fee_bps := order_fee_bps(o, q.kind); q.failover := (p_ask->>'failover')::boolean;
  q.wants := jsonb_build_object('model', o.model, 'devices', o.device_count) || (p_ask->'wants');
  q.created_at := moment; q.expires_at := moment + wait;
  q.deposit := div(q.total * parameter_value('quote_deposit_bps') + 9999, 10000);
  IF q.deposit > 0 THEN
    PERFORM order_ledger_all(q.id, jsonb_build_array(jsonb_build_object(
      'id', q.id, 'action', 'hold', 'debit', order_account(p_client, 'available'), 'amount', q.deposit, 'kind', 'quote.deposit')));
  END IF;
  INSERT INTO marketplace_quote SELECT (q).*;
  RETURN quote_document(q)::text;
END $$;

-- Why an ask found nothing: how many of the listed offers (of the first ten thousand) each wish excludes.
CREATE OR REPLACE FUNCTION quote_reasons(p_client uuid, p_ask jsonb) RETURNS text LANGUAGE sql STABLE AS $$
  WITH looked AS (
    SELECT offer_unmet(o, p_client, p_ask) AS unmet FROM marketplace_offer o
     WHERE o.state = 'listed' AND (p_ask->>'offer' IS NULL OR o.id = (p_ask->>'offer')::uuid) ORDER BY o.id DESC LIMIT 10000)
  SELECT json_build_object('offers', (SELECT count(*) FROM looked), 'taken', (SELECT count(*) FROM looked WHERE unmet = '{}'),
    'excluded_by', coalesce((SELECT json_object_agg(name, n) FROM (
      SELECT name, count(*) AS n FROM looked CROSS JOIN unnest(unmet) name GROUP BY name ORDER BY name) x), '{}'))::text
$$;

CREATE OR REPLACE FUNCTION quote_document(q marketplace_quote) RETURNS json LANGUAGE sql STABLE AS $$
  SELECT json_build_object(
    'id', q.id, 'state', q.state, 'type', q.kind, 'offer_id', q.offer_id, 'miner_id', o.miner_id, 'devices', q.devices,
    'seconds', q.seconds, 'rate', ait_money(q.rate), 'total', ait_money(q.total), 'bid', ait_money(q.bid), 'deposit', ait_money(q.deposit),
    'breakdown', json_build_object('compute', ait_money(q.total - f.fee), 'storage', ait_money(0), 'egress', ait_money(0), 'fee', ait_money(f.fee)),
    'firm', q.firm, 'sla_availability', o.sla_bps / 10000.0, 'starts_at', CASE WHEN q.firm THEN q.starts_at ELSE
       greatest(q.starts_at, q.created_at + parameter_value('spot_notice_seconds') * interval '1 second') END, 'expires_at', q.expires_at,
    'start_deadline_seconds', parameter_value('order_start_seconds'), 'created_at', q.created_at)
    FROM marketplace_offer o CROSS JOIN LATERAL (SELECT div(q.total * q.fee_bps + 9999, 10000) AS fee) f WHERE o.id = q.offer_id
$$;

CREATE OR REPLACE FUNCTION quote_shown(p_client uuid, p_quote uuid) RETURNS text LANGUAGE plpgsql AS $$
DECLARE q marketplace_quote;
BEGIN
  SELECT * INTO q FROM marketplace_quote WHERE id = p_quote AND client_id = p_client;
  IF NOT FOUND THEN PERFORM trading_refuse(404, 'quote.unknown', 'you have no such quote'); END IF;
  RETURN quote_document(q)::text;
END $$;

-- Escrow, the order's time on its devices, and the bond behind it, in one transaction.
CREATE OR REPLACE FUNCTION quote_accept(p_client uuid, p_quote uuid) RETURNS text LANGUAGE plpgsql
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE q marketplace_quote; moment timestamptz; lead interval := parameter_value('order_start_seconds') * interval '1 second';
BEGIN
  SELECT * INTO q FROM marketplace_quote WHERE id = p_quote AND client_id = p_client FOR UPDATE;
  moment := clock_timestamp();
  IF NOT FOUND THEN PERFORM trading_refuse(404, 'quote.unknown', 'you have no such quote');
  ELSIF q.state <> 'open' THEN PERFORM trading_refuse(409, 'quote.' || q.state, 'this quote is ' || q.state || ' already');
  ELSIF q.expires_at <= moment THEN PERFORM trading_refuse(409, 'quote.expired', 'this quote is over: ask for a new one');
  END IF;
  IF q.firm THEN
    q.starts_at := greatest(q.starts_at, moment);
    IF gpu_occupy_until(q.id, q.starts_at + lead + q.seconds * interval '1 second') <> cardinality(q.devices) THEN RAISE EXCEPTION 'quote % has lost its devices', q.id USING ERRCODE = 'integrity_constraint_violation'; END IF;
  ELSE
    q.starts_at := order_evict(q, greatest(q.starts_at, moment), lead);
  END IF;
  PERFORM reputation_require(q.client_id, 'buy', q.total);
  UPDATE marketplace_quote SET state = 'accepted', resolved_at = moment WHERE id = q.id;
  PERFORM order_place(q, CASE WHEN q.deposit > 0 THEN q.id END, NULL);
  RETURN order_shown(p_client, q.id);
END $$;

-- Send notice to the spot orders in a quote's way and have their devices after them -> when it begins.
CREATE OR REPLACE FUNCTION order_evict(q marketplace_quote, p_from timestamptz, p_lead interval) RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE
  victims uuid[]; v marketplace_order; moment timestamptz := clock_timestamp(); begins timestamptz := p_from;
  notice timestamptz := greatest(p_from, moment + parameter_value('spot_notice_seconds') * interval '1 second');
BEGIN
  victims := order_victims(q.devices, q.kind, q.bid, p_from, notice + p_lead + q.seconds * interval '1 second');
  PERFORM 1 FROM marketplace_order WHERE id = ANY (victims) ORDER BY id FOR UPDATE;   -- all orders before any device
  PERFORM gpu_take_turns(q.devices || ARRAY(SELECT unnest(devices) FROM marketplace_order WHERE id = ANY (victims)));
  FOR v IN SELECT * FROM marketplace_order WHERE id = ANY (victims) ORDER BY id LOOP
    CONTINUE WHEN v.state NOT IN ('accepted', 'active');   -- over, or promised to another meanwhile: the constraint decides
    IF v.state = 'accepted' OR v.ends_at > notice THEN     -- who ends by itself before then loses nothing
      v.ends_at := CASE v.state WHEN 'active' THEN notice ELSE moment END;
      UPDATE marketplace_order SET state = 'notice', ends_at = v.ends_at, evicted_by = q.id,
             reason = CASE q.kind WHEN 'spot' THEN 'a higher bid takes the devices' ELSE 'an order that is not spot takes the devices' END
       WHERE id = v.id;
      PERFORM gpu_vacate(v.id, v.ends_at);
    END IF;
    begins := greatest(begins, v.ends_at);
  END LOOP;
  IF victims IS NULL OR gpu_occupy(q.id, q.client_id, q.devices, begins, begins + p_lead + q.seconds * interval '1 second') <> 'ok' THEN
    PERFORM trading_refuse(409, 'quote.taken', 'somebody else was faster: ask for a new quote');
  END IF;
  RETURN begins;
END $$;

-- The order of a quote whose devices are occupied under its id. p_deposit: the hold that goes back, p_from: the order it goes on from.
CREATE OR REPLACE FUNCTION order_place(q marketplace_quote, p_deposit uuid, p_from uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  o marketplace_offer; m gpu_miner; escrow uuid := uuidv7(); bond uuid := uuidv7(); most numeric; codes text[];
  client bigint := order_account(q.client_id, 'available'); covered boolean := false;
BEGIN
  SELECT * INTO STRICT o FROM marketplace_offer WHERE id = q.offer_id;
  SELECT * INTO STRICT m FROM gpu_miner WHERE id = o.miner_id;
  most := div(q.total * 5000, 10000);
  codes := order_ledger(q.id, CASE WHEN p_deposit IS NULL THEN '[]' ELSE
      jsonb_build_array(jsonb_build_object('action', 'void', 'hold', p_deposit, 'kind', 'quote.return')) END
    || jsonb_build_object('id', escrow, 'action', 'hold', 'debit', client, 'amount', q.total, 'kind', 'order.hold')
    || CASE WHEN o.sla_bps IS NOT NULL AND most > 0 THEN jsonb_build_array(jsonb_build_object(
         'id', bond, 'action', 'hold', 'debit', order_account(m.owner_id, 'bond'), 'amount', most, 'kind', 'order.bond')) ELSE '[]' END);
  IF o.sla_bps IS NOT NULL AND most > 0 THEN
    covered := codes[cardinality(codes)] = 'ok';
    codes := codes[:cardinality(codes) - 1];
  END IF;
  IF 'insufficient_funds' = ANY (codes) OR 'account_unknown' = ANY (codes) THEN
    PERFORM trading_refuse(409, 'payment.insufficient_funds', 'the available balance does not cover this order');
  ELSIF array_remove(codes, 'ok') <> '{}' THEN
    RAISE EXCEPTION 'the ledger refused order %: %', q.id, codes USING ERRCODE = 'integrity_constraint_violation';
  ELSIF o.sla_only AND NOT covered THEN
    PERFORM trading_refuse(409, 'order.no_bond', 'the provider''s free bond does not cover the credit that this order may cost');
  END IF;
  INSERT INTO marketplace_order (id, kind, state, offer_id, devices, miner_id, client_id, provider_id, rate, seconds, total, fee_bps, bid, wants,
    failover, starts_at, start_deadline, ends_at, ended_by, reason, hold, paid, fee, refunded, sla_bps, bond_hold, max_credit, moved_from, created_at)
  VALUES (q.id, q.kind, 'accepted', q.offer_id, q.devices, m.id, q.client_id, m.owner_id, q.rate, q.seconds, q.total, q.fee_bps, q.bid, q.wants,
    q.failover, q.starts_at, q.starts_at + parameter_value('order_start_seconds') * interval '1 second',
    q.starts_at + q.seconds * interval '1 second', '', '', escrow, 0, 0, 0, CASE WHEN covered THEN o.sla_bps END,
    CASE WHEN covered THEN bond END, CASE WHEN covered THEN most ELSE 0 END, p_from, clock_timestamp());
END $$;

-- The most overdue quote expires: the deposit returns, or goes to the provider of a client who rarely accepts (protocols 22).
CREATE OR REPLACE FUNCTION quote_next() RETURNS text LANGUAGE plpgsql
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE q marketplace_quote; refused bigint; asked bigint; lost boolean; provider uuid;
BEGIN
  SELECT * INTO q FROM marketplace_quote WHERE state = 'open' AND expires_at <= clock_timestamp() ORDER BY expires_at LIMIT 1 FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN RETURN NULL; END IF;
  SELECT count(*) FILTER (WHERE state <> 'accepted') + 1, count(*) + 1 INTO refused, asked FROM marketplace_quote
   WHERE client_id = q.client_id AND resolved_at > clock_timestamp() - interval '1 day';
  lost := q.deposit > 0 AND asked >= 5 AND refused * 10000 > asked * parameter_value('quote_no_accept_bps');
  SELECT m.owner_id INTO provider FROM marketplace_offer o JOIN gpu_miner m ON m.id = o.miner_id WHERE o.id = q.offer_id;
  PERFORM gpu_vacate(q.id, least(q.expires_at, clock_timestamp()));
  UPDATE marketplace_quote SET state = CASE WHEN lost THEN 'forfeited' ELSE 'expired' END, resolved_at = clock_timestamp() WHERE id = q.id;
  IF q.deposit > 0 THEN
    PERFORM order_ledger_all(q.id, jsonb_build_array(CASE WHEN lost THEN jsonb_build_object(
        'action', 'post', 'hold', q.id, 'credit', ledger_account(provider, 'AIT', 'available'), 'amount', q.deposit, 'kind', 'quote.forfeit')
      ELSE jsonb_build_object('action', 'void', 'hold', q.id, 'kind', 'quote.return') END));
  END IF;
  RETURN CASE WHEN lost THEN 'quote_forfeited' ELSE 'quote_expired' END;
END $$;
