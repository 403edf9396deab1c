-- The life of a job. Each function is one transaction when called alone: state, queue and money move together.
-- The hot functions force generic plans: an array parameter makes the planner believe that a plan made anew for
-- each call is cheaper, and the planning then costs more than the work. They also look every row up by an index:
-- a plan made while the tables were small would be kept by the session, and scan them whole when they are large.
-- Lock order everywhere: miner, queue rows (never waited for), clocks (never waited for), jobs by id, payments by id, holds by id, accounts by id.

-- Exact: numeric division keeps some sixteen digits, and the ceiling of a rounded quotient may be one too low.
CREATE OR REPLACE FUNCTION gpu_ceil_div(a numeric, b numeric) RETURNS numeric LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT div(a + b - 1, b)
$$;

-- Wake waiting miners, only if some process waits: NOTIFY makes commits queue behind each other.
CREATE OR REPLACE FUNCTION gpu_announce_work() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT 1 FROM gpu_waiter WHERE until > clock_timestamp()) THEN
    PERFORM pg_notify('gpu_work', '');
  END IF;
END $$;

-- The first field in which an item differs from the job that was submitted under its id.
CREATE OR REPLACE FUNCTION gpu_difference(j gpu_job, p_item jsonb) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT CASE
    WHEN j.kind <> x.kind THEN 'kind'
    WHEN j.input IS DISTINCT FROM nullif(p_item->'input', 'null') THEN 'input'
    WHEN encode(j.input_artifact, 'hex') IS DISTINCT FROM x.input_artifact THEN 'input_artifact'
    WHEN j.offer_id IS DISTINCT FROM x.offer_id THEN 'offer_id'
    WHEN j.order_id IS DISTINCT FROM x.order_id THEN 'order_id'
    WHEN j.max_price <> x.max_price THEN 'max_price'
    WHEN j.expires_at - j.created_at <> x.ttl * interval '1 second' THEN 'ttl_seconds'
    WHEN j.priority <> x.priority THEN 'priority'
    WHEN (c.gpu_model, c.min_vram_mb, c.cuda, c.region, c.min_reliability, c.model_names) IS DISTINCT FROM
         (x.gpu_model, x.min_vram_mb, x.cuda, x.region, x.min_reliability, coalesce(x.models, '{}')::varchar[]) THEN 'constraints'
    ELSE 'input' END                  -- other numbers of one value, such as 1 and 1.0
    FROM jsonb_to_record(p_item) AS x(
      kind text, input_artifact text, offer_id uuid, order_id uuid, max_price numeric, ttl int, priority int, gpu_model text,
      min_vram_mb int, cuda int[], region text, models text[], min_reliability float8)
    LEFT JOIN gpu_job_class c ON c.id = j.job_class_id
$$;

-- What a client submits, as the edge checked it. `fresh_id`: the platform made the id, so it cannot exist yet.
CREATE TYPE gpu_submission AS (
  id uuid, fresh_id boolean, payment uuid, kind text, input jsonb, input_artifact text, artifacts text[], digest text, salt text,
  offer_id uuid, max_price numeric, listed_price numeric, ttl int, priority int,
  gpu_model text, min_vram_mb int, cuda int[], region text, models text[], miner uuid, min_reliability float8, order_id uuid);

-- Submit items of one client: escrow and queue each, or say why not. One bad item does not sink the others.
-- Codes: ok, exists, exists_with_different_<field>, insufficient_funds, queue_full, order_unknown, order_not_active.
-- Locks: the ids of a batch, the client's place in the queue, his account.
CREATE OR REPLACE FUNCTION gpu_submit_items(p_client uuid, p_items jsonb)
RETURNS TABLE (ord int, code text, document json) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
  items gpu_submission[]; ids uuid[]; known uuid[]; codes text[]; opened text[]; fresh int[]; paying int[]; leads jsonb; held record;
  room int; waiting int; added int; moment timestamptz := clock_timestamp(); surcharge int := parameter_value('priority_surcharge_bps');
BEGIN
  SELECT array_agg(r), array_agg(r.id), array_agg('exists'::text) INTO items, ids, codes
    FROM jsonb_populate_recordset(NULL::gpu_submission, p_items) r;   -- a scan of one function keeps its order
  IF array_length(ids, 1) = 1 AND items[1].fresh_id THEN
    fresh := ARRAY[1];
  ELSE  -- a rival with the same job id waits here, and then sees the row
    PERFORM pg_advisory_xact_lock(hashtextextended(i::text, 11)) FROM (SELECT unnest(ids) ORDER BY 1) AS x(i);
    SELECT array_agg(id) INTO known FROM gpu_job WHERE id = ANY (ids);
    SELECT array_agg(o ORDER BY o) INTO fresh FROM unnest(ids) WITH ORDINALITY AS x(i, o)
     WHERE (known IS NULL OR i <> ALL (known)) AND array_position(ids, i) = o;
  END IF;
  IF fresh IS NOT NULL THEN
    SELECT r.room, r.queued INTO room, waiting FROM gpu_room(p_client, array_length(fresh, 1)) r;
    SELECT jsonb_object_agg(priority, lead), CASE WHEN sum(n) >= parameter_value('max_queued_classes') THEN 0 ELSE room END INTO leads, room
      FROM (SELECT f.priority, max(greatest(f.last - c.vtime, 0)) AS lead, count(*) AS n
              FROM gpu_flows(p_client) f JOIN gpu_job_class c ON c.id = f.class GROUP BY f.priority) x;
    FOR i IN 1..array_length(fresh, 1) LOOP
      codes[fresh[i]] := CASE WHEN i > room THEN 'queue_full' ELSE 'ok' END;
      CONTINUE WHEN i > room OR items[fresh[i]].order_id IS NULL;
      SELECT d.miner_id, bool_or(o.during @> moment) AS now INTO held FROM gpu_occupancy o JOIN gpu_device d ON d.id = o.device_id
       WHERE o.holder = items[fresh[i]].order_id AND o.client_id = p_client GROUP BY d.miner_id ORDER BY 2 DESC LIMIT 1;
      items[fresh[i]].miner := held.miner_id;
      codes[fresh[i]] := CASE WHEN held.miner_id IS NULL THEN 'order_unknown' WHEN NOT held.now THEN 'order_not_active' ELSE 'ok' END;
    END LOOP;
    SELECT array_agg(f ORDER BY f) INTO paying FROM unnest(fresh) f WHERE codes[f] = 'ok' AND items[f].order_id IS NULL;
    IF paying IS NOT NULL THEN
      SELECT payments_open(array_agg(items[f].payment ORDER BY f), array_agg(ids[f] ORDER BY f), array_agg(p_client),
                           array_agg(items[f].max_price ORDER BY f), 'AIT')
        INTO opened FROM unnest(paying) f;
      FOR i IN 1..array_length(paying, 1) LOOP codes[paying[i]] := opened[i]; END LOOP;
    END IF;
    -- Priority raises the unit price, so a job's budget for a second is its price less the surcharge.
    WITH wanted AS MATERIALIZED (
      SELECT f, x.*, x.priority * surcharge AS extra, CASE WHEN x.order_id IS NULL THEN div(x.max_price * 10000, 10000 + x.priority * surcharge) ELSE 1 END AS budget
        FROM unnest(fresh) f CROSS JOIN LATERAL unnest(items[f:f]) x WHERE codes[f] = 'ok'),
    sorted AS MATERIALIZED (
      SELECT w.*, gpu_class_id(kind, gpu_model, min_vram_mb, cuda, region, models, min_reliability, miner, order_id, budget) AS class,
             sum(gpu_cost(budget, priority)) OVER (PARTITION BY priority ORDER BY f) AS cost FROM wanted w),
    clock AS MATERIALIZED (SELECT class, gpu_clock(class) AS vtime FROM (SELECT DISTINCT class FROM sorted) c),
    accepted AS (
      INSERT INTO gpu_job (id, client_id, kind, state, priority, job_class_id, input, input_artifact, artifacts, digest, salt,
                           offer_id, order_id, max_price, surcharge_bps, listed_price, created_at, expires_at, attempts, rank)
      SELECT x.id, p_client, x.kind, 'queued', x.priority, x.class, x.input, decode(x.input_artifact, 'hex'), x.artifacts,
             decode(x.digest, 'hex'), decode(x.salt, 'hex'), x.offer_id, x.order_id, x.max_price, x.extra, x.listed_price, moment,
             moment + x.ttl * interval '1 second', 0, c.vtime + coalesce((leads->>x.priority::text)::bigint, 0) + x.cost
        FROM sorted x JOIN clock c ON c.class = x.class
      RETURNING *)
    INSERT INTO gpu_job_queue (job_id, client_id, priority, job_class_id, rank, since, max_price, expires_at)
    SELECT id, client_id, priority, job_class_id, rank, created_at, gpu_budget(a::gpu_job), expires_at FROM accepted a;
    GET DIAGNOSTICS added = ROW_COUNT;
    IF added > 0 THEN
      INSERT INTO gpu_queue_client AS c (client_id, queued) VALUES (p_client, waiting + added)
        ON CONFLICT (client_id) DO UPDATE SET queued = excluded.queued;
      PERFORM gpu_announce_work();
    END IF;
  END IF;
  RETURN QUERY
    SELECT x.o::int,
           CASE WHEN codes[x.o] <> 'exists' THEN codes[x.o]
                WHEN j.id IS NULL THEN codes[array_position(ids, x.id)]      -- repeats an item that was refused
                WHEN j.client_id <> p_client THEN 'exists_with_different_id'  -- and no word about the other one
                WHEN j.digest <> decode(items[x.o].digest, 'hex')
                THEN 'exists_with_different_' || gpu_difference(j, p_items->(x.o::int - 1)) ELSE 'exists' END,
           CASE WHEN j.client_id = p_client THEN gpu_job_document(j, p) END
      FROM unnest(ids) WITH ORDINALITY AS x(id, o)
      LEFT JOIN gpu_job j ON j.id = x.id LEFT JOIN trading_payment p ON p.job = x.id ORDER BY x.o;
END $$;

-- One submission under an Idempotency-Key, in one statement. `code` may also be replay, in_flight, mismatch.
CREATE OR REPLACE FUNCTION gpu_submit(p_client uuid, p_key text, p_digest bytea, p_item jsonb)
RETURNS TABLE (code text, document text) LANGUAGE plpgsql AS $$
DECLARE b record; r record;
BEGIN
  IF p_key IS NOT NULL THEN
    SELECT * INTO b FROM core_idempotency_begin(p_client, 'jobs.submit', p_key, p_digest);
    IF b.state <> 'new' THEN RETURN QUERY SELECT b.state, b.body; RETURN; END IF;
  END IF;
  SELECT * INTO r FROM gpu_submit_items(p_client, jsonb_build_array(p_item));
  IF p_key IS NOT NULL AND r.code IN ('ok', 'exists') THEN
    PERFORM core_idempotency_store(p_client, 'jobs.submit', p_key, p_digest, 201, r.document::text);
  END IF;
  RETURN QUERY SELECT r.code, r.document::text;
END $$;

-- What a job can pay for one device second at most, before the surcharge of its priority.
CREATE OR REPLACE FUNCTION gpu_budget(j gpu_job) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
  SELECT div(j.max_price * 10000, 10000 + j.surcharge_bps)
$$;

-- The price of a device second that a lease to m agrees: nothing if an order pays, else the listed price or a lower one.
CREATE OR REPLACE FUNCTION gpu_unit_price(j gpu_job, m gpu_miner) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN j.order_id IS NULL
              THEN gpu_ceil_div(least(m.price, coalesce(j.listed_price, m.price)) * (10000 + j.surcharge_bps), 10000) ELSE 0 END
$$;

-- What that pays for, or what is left of the order.
CREATE OR REPLACE FUNCTION gpu_max_ms(j gpu_job, p_price numeric, p_moment timestamptz) RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT least(parameter_value('max_job_seconds') * 1000, CASE WHEN j.order_id IS NULL THEN div(j.max_price * 1000, p_price)
    ELSE (SELECT trunc(extract(epoch FROM max(upper(o.during)) - p_moment) * 1000) FROM gpu_occupancy o WHERE o.holder = j.order_id) END)::bigint
$$;

-- Lease up to p_max of the best ranked jobs that the miner may run and that pay for at least a second: to each order that
-- occupies devices of it, and to the pool, within the slots that are theirs.
-- No bitmap scans: only plain index scans mark the dead entries that leases leave in the small index `job_held`.
CREATE OR REPLACE FUNCTION gpu_claim(p_key uuid, p_max int, p_kinds text[])
RETURNS TABLE (code text, document text) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan
  SET enable_bitmapscan = off SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
  m gpu_miner; free int; share record; picked uuid[] := '{}'; moment timestamptz; lease interval;
  classes int[]; named boolean[]; holders uuid[];
BEGIN
  SELECT * INTO m FROM gpu_miner WHERE key_id = p_key;
  IF NOT FOUND THEN RETURN QUERY SELECT 'unregistered', NULL::text; RETURN; END IF;
  IF m.state IN ('online', 'suspect') THEN
    SELECT array_agg(c.id), array_agg(c.named), array_agg(c.holder) INTO classes, named, holders FROM gpu_classes_of(m, p_kinds) c;
    IF classes IS NULL THEN RETURN QUERY SELECT 'none', '[]'::text; RETURN; END IF;  -- a lock is a write
    SELECT * INTO m FROM gpu_miner WHERE key_id = p_key FOR NO KEY UPDATE;
  END IF;
  IF m.state NOT IN ('online', 'suspect') THEN RETURN QUERY SELECT m.state::text, '[]'::text; RETURN; END IF;
  SELECT least(p_max, least(m.concurrency, reputation_max_jobs(m.owner_id)) - count(*)) INTO free FROM gpu_job j
   WHERE j.miner_id = m.id AND j.state IN ('leased', 'running');
  IF free <= 0 THEN RETURN QUERY SELECT 'busy', '[]'::text; RETURN; END IF;
  FOR share IN
    SELECT s.holder, s.slots - (SELECT count(*) FROM gpu_job j WHERE j.miner_id = m.id AND j.state IN ('leased', 'running')
                                   AND j.order_id IS NOT DISTINCT FROM s.holder) AS slots,
           (SELECT array_agg(c) FROM unnest(classes, holders) AS x(c, h) WHERE h IS NOT DISTINCT FROM s.holder) AS classes,
           (SELECT array_agg(n) FROM unnest(named, holders) AS x(n, h) WHERE h IS NOT DISTINCT FROM s.holder) AS named
      FROM gpu_slots(m) s ORDER BY s.holder IS NULL LOOP
    CONTINUE WHEN share.classes IS NULL OR least(share.slots, free - cardinality(picked)) <= 0;
    picked := picked || gpu_take(m, share.classes, share.named, share.holder IS NULL, least(share.slots, free - cardinality(picked))::int);
  END LOOP;
  IF picked = '{}' THEN RETURN QUERY SELECT 'none', '[]'::text; RETURN; END IF;
  moment := clock_timestamp();
  lease := parameter_value('lease_seconds') * interval '1 second';
  WITH leased AS (
    UPDATE gpu_job j SET state = 'leased', miner_id = m.id, attempts = j.attempts + 1, lease_token = gen_random_uuid(),
           unit_price = gpu_unit_price(j, m), fee_bps = reputation_fee_bps(m.owner_id, parameter_value('fee_bps')),
           max_ms = gpu_max_ms(j, gpu_unit_price(j, m), moment),
           leased_at = moment, started_at = NULL, progress = NULL, lease_expires_at = moment + lease
     WHERE j.id = ANY (picked) AND j.state = 'queued' RETURNING j.*)      -- not one that was canceled meanwhile
  SELECT 'ok', coalesce(json_agg(gpu_lease_document(l::gpu_job) ORDER BY array_position(picked, l.id))::text, '[]')
    INTO code, document FROM leased l;
  RETURN NEXT;
END $$;

-- What a report needs to know of the leases it names, at this moment of the database's clock.
CREATE OR REPLACE FUNCTION gpu_lease_facts(p_key uuid, p_jobs uuid[])
RETURNS TABLE (
  id uuid, state text, kind text, client uuid, miner uuid, address bytea, attempt int, lease_token uuid, salt bytea,
  input jsonb, input_artifact bytea, unit_price numeric, max_price numeric, max_ms bigint, started_ms bigint,
  now_ms bigint, fee_bps bigint, result_digest bytea, owner uuid
) LANGUAGE sql STABLE SET plan_cache_mode = force_generic_plan
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
  SELECT j.id, j.state, j.kind, j.client_id, j.miner_id, m.address, j.attempts, j.lease_token, j.salt, j.input,
         j.input_artifact, j.unit_price, j.max_price, j.max_ms,
         (extract(epoch FROM coalesce(j.started_at, CASE WHEN cardinality(j.artifacts) = 0 THEN j.leased_at END)) * 1000)::bigint,
         (extract(epoch FROM clock_timestamp()) * 1000)::bigint,
         coalesce(j.fee_bps, parameter_value('fee_bps')), r.digest, m.owner_id
    FROM gpu_miner m JOIN gpu_job j ON j.id = ANY (p_jobs) AND j.miner_id = m.id
    LEFT JOIN gpu_job_result r ON r.job_id = j.id
   WHERE m.key_id = p_key
$$;

CREATE TYPE gpu_completion AS (
  job uuid, lease_token uuid, started_ms bigint, finished_ms bigint, units_ms bigint, total numeric, fee numeric,
  output jsonb, output_artifact text, metrics jsonb, digest text, receipt jsonb, leaf text, owner uuid);

-- Complete leased jobs: result, receipt, receipt leaf and money in one transaction.
-- Codes: ok | lost. What lost its lease changes nothing.
CREATE OR REPLACE FUNCTION gpu_complete(p_items jsonb)
RETURNS TABLE (job uuid, code text, document text) LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE items gpu_completion[]; ids uuid[]; ended uuid[]; owners uuid[]; totals numeric[]; fees numeric[];
BEGIN
  SELECT array_agg(r::gpu_completion ORDER BY r.job), array_agg(r.job ORDER BY r.job) INTO items, ids
    FROM jsonb_populate_recordset(NULL::gpu_completion, p_items) r;
  IF array_length(ids, 1) > 1 THEN
    PERFORM 1 FROM gpu_job j WHERE j.id = ANY (ids) ORDER BY j.id FOR NO KEY UPDATE;
  END IF;
  WITH done AS (
    UPDATE gpu_job j SET state = 'completed', started_at = to_timestamp(x.started_ms / 1000.0),
           finished_at = to_timestamp(x.finished_ms / 1000.0), units_ms = x.units_ms, lease_expires_at = NULL
      FROM unnest(items) x
     WHERE j.id = x.job AND j.lease_token = x.lease_token AND j.state IN ('leased', 'running')
    RETURNING x.*, gpu_counted(j.kind, j.input) AS counted),
  result AS (
    INSERT INTO gpu_job_result (job_id, output, output_artifact, metrics, digest)
    SELECT x.job, x.output, decode(x.output_artifact, 'hex'), coalesce(x.metrics || x.counted, x.metrics),
           decode(x.digest, 'hex') FROM done x),
  receipt AS (
    INSERT INTO gpu_receipt (job_id, document, leaf) SELECT x.job, x.receipt, decode(x.leaf, 'hex') FROM done x),
  leaf AS (
    INSERT INTO trading_receipt_leaf (job, leaf) SELECT x.job, decode(x.leaf, 'hex') FROM done x)
  SELECT array_agg(x.job), array_agg(x.owner), array_agg(x.total), array_agg(x.fee) INTO ended, owners, totals, fees FROM done x;
  IF ended IS NOT NULL THEN
    PERFORM payments_settle(ended, owners, totals, fees);
  END IF;
  RETURN QUERY
    SELECT j.id, CASE WHEN j.id = ANY (ended) THEN 'ok' ELSE 'lost' END,
           CASE WHEN j.id = ANY (ended) THEN gpu_job_document(j, p)::text END
      FROM gpu_job j LEFT JOIN trading_payment p ON p.job = j.id WHERE j.id = ANY (ids);
END $$;

-- Put jobs whose attempt ended back into the queue, at their old rank or at the class's time if that is sooner: in front of
-- whoever came later. Or fail them when attempts are used up.
-- p_fault: client | provider | platform. A client's fault must be reproduced by a second miner (protocols 15), unless an
-- order pays: then nobody else may run the job, and nothing is owed for it.
CREATE OR REPLACE FUNCTION gpu_end_attempt(
  p_jobs uuid[], p_code text, p_message text, p_fault text, p_retry boolean
) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
  j gpu_job; earlier gpu_attempt; moment timestamptz := clock_timestamp(); most int := parameter_value('max_attempts');
  ms bigint; earned numeric; ended int := 0;
BEGIN
  PERFORM 1 FROM gpu_job x WHERE x.id = ANY (p_jobs) ORDER BY x.id FOR NO KEY UPDATE;   -- all jobs before any account
  FOR j IN SELECT * FROM gpu_job x WHERE x.id = ANY (p_jobs) AND x.state IN ('leased', 'running') ORDER BY x.id LOOP
    ended := ended + 1;
    ms := least(CASE WHEN j.started_at IS NULL THEN 0 ELSE (extract(epoch FROM moment - j.started_at) * 1000)::bigint END, j.max_ms);
    -- Another owner's miner: two of one owner could confirm each other for the money.
    SELECT a.* INTO earlier FROM gpu_attempt a JOIN gpu_miner theirs ON theirs.id = a.miner_id
       JOIN gpu_miner his ON his.id = j.miner_id AND his.owner_id <> theirs.owner_id
     WHERE a.job_id = j.id AND a.fault = 'client' AND a.code = p_code LIMIT 1;
    INSERT INTO gpu_attempt (job_id, attempt, miner_id, leased_at, started_at, ended_at, ms, code, message, fault)
    VALUES (j.id, j.attempts, j.miner_id, j.leased_at, j.started_at, moment, ms, p_code, left(p_message, 2000), p_fault);
    IF p_fault = 'client' AND earlier.id IS NOT NULL THEN     -- reproduced: the metered time is owed
      earned := gpu_ceil_div(ms * j.unit_price, 1000);
      PERFORM gpu_fail(j.id, p_code, p_message, ms, earned);
    ELSIF (CASE WHEN p_fault = 'client' THEN j.order_id IS NULL ELSE p_retry END) AND j.attempts < most AND j.expires_at > moment THEN
      UPDATE gpu_job SET state = 'queued', miner_id = NULL, lease_token = NULL, lease_expires_at = NULL, leased_at = NULL,
             started_at = NULL, progress = NULL
       WHERE id = j.id;
      INSERT INTO gpu_job_queue (job_id, client_id, priority, job_class_id, rank, since, max_price, expires_at, avoid)
      VALUES (j.id, j.client_id, j.priority, j.job_class_id,
              least(j.rank, (SELECT c.vtime FROM gpu_job_class c WHERE c.id = j.job_class_id)), j.created_at, gpu_budget(j), j.expires_at,
              (SELECT a.miner_id FROM gpu_attempt a WHERE a.job_id = j.id AND a.fault = 'client' ORDER BY a.attempt DESC LIMIT 1));
      PERFORM gpu_announce_work();
    ELSE
      PERFORM gpu_fail(j.id, p_code, p_message, ms, 0);
    END IF;
  END LOOP;
  RETURN ended;
END $$;

CREATE OR REPLACE FUNCTION gpu_fail(p_job uuid, p_code text, p_message text, p_ms bigint, p_earned numeric)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE total numeric; fee numeric; provider uuid; price numeric; bps bigint;
BEGIN
  UPDATE gpu_job SET state = 'failed', finished_at = clock_timestamp(), lease_expires_at = NULL,
         units_ms = CASE WHEN p_earned > 0 THEN p_ms ELSE 0 END, error_code = p_code, error_message = left(p_message, 2000)
   WHERE id = p_job RETURNING max_price, coalesce(fee_bps, parameter_value('fee_bps')) INTO price, bps;
  DELETE FROM gpu_job_queue WHERE job_id = p_job;
  total := least(p_earned, price);
  fee := gpu_ceil_div(total * bps, 10000);
  SELECT m.owner_id INTO provider FROM gpu_job j JOIN gpu_miner m ON m.id = j.miner_id WHERE j.id = p_job;
  PERFORM payments_settle(ARRAY[p_job], ARRAY[provider], ARRAY[total], ARRAY[fee]);
END $$;

-- Cancel a client's job: what was metered is earned, the rest returns. Codes: ok | unknown | final.
CREATE OR REPLACE FUNCTION gpu_cancel(p_client uuid, p_job uuid)
RETURNS TABLE (code text, document text) LANGUAGE plpgsql AS $$
DECLARE j gpu_job; ms bigint := 0; total numeric := 0; provider uuid;
BEGIN
  SELECT * INTO j FROM gpu_job WHERE id = p_job AND (p_client IS NULL OR client_id = p_client) FOR NO KEY UPDATE;
  IF NOT FOUND THEN RETURN QUERY SELECT 'unknown', NULL::text; RETURN; END IF;
  IF j.state NOT IN ('queued', 'leased', 'running') THEN RETURN QUERY SELECT 'final', NULL::text; RETURN; END IF;
  IF j.state = 'running' THEN
    ms := least((extract(epoch FROM clock_timestamp() - j.started_at) * 1000)::bigint, j.max_ms);
    total := least(gpu_ceil_div(ms * j.unit_price, 1000), j.max_price);
    SELECT owner_id INTO provider FROM gpu_miner WHERE id = j.miner_id;
  END IF;
  -- A claim that holds the queue row waits for this job's lock: let it find the job canceled, never wait for it.
  DELETE FROM gpu_job_queue WHERE job_id IN (SELECT job_id FROM gpu_job_queue WHERE job_id = p_job FOR UPDATE SKIP LOCKED);
  UPDATE gpu_job SET state = 'canceled', finished_at = clock_timestamp(), units_ms = ms, lease_expires_at = NULL WHERE id = p_job;
  PERFORM payments_settle(ARRAY[p_job], ARRAY[provider], ARRAY[total],
                          ARRAY[gpu_ceil_div(total * coalesce(j.fee_bps, parameter_value('fee_bps')), 10000)]);
  RETURN QUERY SELECT 'ok', gpu_job_document(x, p)::text FROM gpu_job x LEFT JOIN trading_payment p ON p.job = x.id WHERE x.id = p_job;
END $$;

-- Jobs whose time in the queue is over: expired and refunded; a failure waiting to be reproduced is failed and refunded.
CREATE OR REPLACE FUNCTION gpu_expire_queued(p_limit int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE due uuid[]; j record;
BEGIN
  WITH old AS (SELECT job_id FROM gpu_job_queue WHERE expires_at <= clock_timestamp() ORDER BY expires_at LIMIT p_limit FOR UPDATE SKIP LOCKED),
  gone AS (DELETE FROM gpu_job_queue q USING old WHERE q.job_id = old.job_id RETURNING q.job_id)
  SELECT array_agg(job_id) INTO due FROM gone;
  IF due IS NULL THEN RETURN 0; END IF;
  PERFORM 1 FROM gpu_job x WHERE x.id = ANY (due) ORDER BY x.id FOR NO KEY UPDATE;   -- all jobs before any account
  FOR j IN SELECT x.id, a.code, a.message FROM gpu_job x
             LEFT JOIN LATERAL (SELECT a.code, a.message FROM gpu_attempt a WHERE a.job_id = x.id ORDER BY a.attempt DESC LIMIT 1) a ON true
            WHERE x.id = ANY (due) AND x.state = 'queued' ORDER BY x.id LOOP
    IF j.code IS NULL THEN
      UPDATE gpu_job SET state = 'expired', finished_at = clock_timestamp(), units_ms = 0,
             error_code = 'job.expired', error_message = 'no miner took the job within its time in the queue' WHERE id = j.id;
      PERFORM payments_settle(ARRAY[j.id], ARRAY[NULL::uuid], ARRAY[0::numeric], ARRAY[0::numeric], ARRAY[true]);
    ELSE
      PERFORM gpu_fail(j.id, j.code, j.message, 0, 0);
    END IF;
  END LOOP;
  RETURN array_length(due, 1);
END $$;
