-- The queue: who may be served, and who is served next (protocols 25; why it is as it is: docs/adr/0012).
-- Ranks are microseconds of device time in a virtual time: rank = the class's clock + how far the client is ahead +
-- cost / weight. A class's clock is the rank that was last claimed from it; classes that a claiming miner could have
-- served instead follow it, and an empty class takes the time of the miners that serve it. The functions look rows up by
-- ordered indexes only: a plan made while the queue was short would be kept, and sort a million rows later.
-- Clocks are moved with SKIP LOCKED: nobody waits for a clock, and who is late is caught up with by the next claim.

-- How many jobs a client may have waited for, at least: never less than are queued, and counted anew at the limit only.
CREATE TABLE IF NOT EXISTS gpu_queue_client (client_id uuid PRIMARY KEY, queued int NOT NULL CHECK (queued >= 0))
  WITH (fillfactor = 50);

-- p_budget: what the job can pay for one device second at most; its class holds budgets up to the next power of two.
CREATE OR REPLACE FUNCTION gpu_class_id(
  p_kind text, p_gpu_model text, p_min_vram_mb int, p_cuda int[], p_region text, p_models text[], p_reliability float8,
  p_miner uuid, p_holder uuid, p_budget numeric
) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
  hit int;
  top numeric := CASE WHEN p_miner IS NULL THEN trunc(power(2::numeric, ceil(log(2, p_budget) + 0.000001))) ELSE 0 END;
  k bytea := sha256(convert_to(jsonb_build_array(
    p_kind, p_gpu_model, p_min_vram_mb, p_cuda, p_region, p_models, p_reliability, p_miner, p_holder, top)::text, 'UTF8'));
BEGIN
  SELECT id INTO hit FROM gpu_job_class WHERE key = k;
  IF FOUND THEN RETURN hit; END IF;
  PERFORM pg_advisory_xact_lock(13);   -- two batches that make the same new classes in other orders would wait for each other
  INSERT INTO gpu_job_class (key, kind, gpu_model, min_vram_mb, cuda, region, model_names, min_reliability, miner, holder, budget, vtime)
  VALUES (k, p_kind, p_gpu_model, p_min_vram_mb, p_cuda, p_region, coalesce(p_models, '{}'), p_reliability, p_miner, p_holder, top, 0)
  ON CONFLICT (key) DO NOTHING;
  SELECT id INTO STRICT hit FROM gpu_job_class WHERE key = k;
  RETURN hit;
END $$;

-- Has the miner one device with all that the class asks of a device? CUDA versions compare as arrays of numbers.
CREATE OR REPLACE FUNCTION gpu_has_device(p_miner uuid, c gpu_job_class) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT EXISTS (
    SELECT 1 FROM gpu_device d WHERE d.miner_id = p_miner AND d.active
       AND (c.gpu_model IS NULL OR lower(d.model) = lower(c.gpu_model) OR (lower(c.gpu_model) = 'nvidia/any' AND d.kind = 'cuda'))
       AND (c.min_vram_mb IS NULL OR d.memory_mb >= c.min_vram_mb)
       AND (c.cuda IS NULL OR string_to_array(d.cuda, '.')::int[] >= c.cuda))
$$;

-- May this miner serve the class? No score is no reliability. Without a subquery, so that callers inline it.
CREATE OR REPLACE FUNCTION gpu_serves(m gpu_miner, c gpu_job_class) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT c.kind = ANY (m.kinds) AND (c.region IS NULL OR c.region = m.region)
     AND CASE WHEN c.miner IS NULL THEN c.budget >= m.price ELSE c.miner = m.id END
     AND c.model_names <@ m.model_names AND (c.min_reliability IS NULL OR m.reliability >= c.min_reliability)
     AND ((c.gpu_model IS NULL AND c.min_vram_mb IS NULL AND c.cuda IS NULL) OR gpu_has_device(m.id, c))
$$;

-- The classes with something in the queue that a miner may serve: from class to class along the index.
CREATE OR REPLACE FUNCTION gpu_classes_of(m gpu_miner, p_kinds text[]) RETURNS TABLE (id int, named boolean, holder uuid) LANGUAGE sql STABLE
  SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
  WITH RECURSIVE filled AS (
    (SELECT job_class_id AS id FROM gpu_job_queue ORDER BY job_class_id LIMIT 1)
    UNION ALL
    SELECT n.job_class_id FROM filled f CROSS JOIN LATERAL (
      SELECT q.job_class_id FROM gpu_job_queue q WHERE q.job_class_id > f.id ORDER BY q.job_class_id LIMIT 1) n)
  SELECT c.id, c.miner IS NOT NULL, c.holder FROM filled f JOIN gpu_job_class c ON c.id = f.id
   WHERE (p_kinds IS NULL OR c.kind = ANY (p_kinds)) AND gpu_serves(m, c)
$$;

-- The time of a class, at which a job that is submitted now begins. An empty class has nobody to be fair to: it takes the
-- median time of the miners that serve it, at most once a second, so that no class is a short way to the front.
CREATE OR REPLACE FUNCTION gpu_clock(p_class int) RETURNS bigint LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan
  SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $$
DECLARE c gpu_job_class; fresh bigint;
BEGIN
  SELECT * INTO STRICT c FROM gpu_job_class WHERE id = p_class;
  IF c.vtime_at > clock_timestamp() - interval '1 second' OR c.holder IS NOT NULL
     OR EXISTS (SELECT 1 FROM gpu_job_queue WHERE job_class_id = p_class ORDER BY rank LIMIT 1) THEN
    RETURN c.vtime;
  END IF;
  SELECT coalesce(percentile_disc(0.5) WITHIN GROUP (ORDER BY m.vtime) FILTER (WHERE gpu_serves(m, c)),
                  percentile_disc(0.5) WITHIN GROUP (ORDER BY m.vtime), 0)
    INTO fresh FROM gpu_miner m WHERE m.state IN ('online', 'suspect') AND m.vtime > 0;
  UPDATE gpu_job_class SET vtime = greatest(vtime, fresh), vtime_at = clock_timestamp()
   WHERE id IN (SELECT id FROM gpu_job_class WHERE id = p_class FOR NO KEY UPDATE SKIP LOCKED);
  RETURN greatest(c.vtime, fresh);
END $$;

-- Where the queued jobs of a client end, for each priority and class: from one to the next along the index.
CREATE OR REPLACE FUNCTION gpu_flows(p_client uuid) RETURNS TABLE (priority smallint, class int, last bigint) LANGUAGE sql STABLE
  SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $$
  WITH RECURSIVE flow AS (
    (SELECT q.priority, q.job_class_id, q.rank FROM gpu_job_queue q WHERE q.client_id = p_client
      ORDER BY q.priority DESC, q.job_class_id DESC, q.rank DESC LIMIT 1)
    UNION ALL
    SELECT n.* FROM flow f CROSS JOIN LATERAL (
      SELECT q.priority, q.job_class_id, q.rank FROM gpu_job_queue q
       WHERE q.client_id = p_client AND (q.priority, q.job_class_id) < (f.priority, f.job_class_id)
       ORDER BY q.priority DESC, q.job_class_id DESC, q.rank DESC LIMIT 1) n)
  SELECT * FROM flow
$$;

-- How many of p_wanted jobs the client may queue, and what to add those to in gpu_queue_client. Locks the client: his
-- submissions follow each other, here as at his account.
CREATE OR REPLACE FUNCTION gpu_room(p_client uuid, p_wanted int, OUT room int, OUT queued int) LANGUAGE plpgsql
  SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE most int := parameter_value('max_queued_jobs');
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended(p_client::text, 12));
  queued := coalesce((SELECT c.queued FROM gpu_queue_client c WHERE c.client_id = p_client), 0);
  IF queued + p_wanted > most THEN
    SELECT count(*) INTO queued FROM (SELECT 1 FROM gpu_job_queue WHERE client_id = p_client LIMIT most) x;
  END IF;
  room := least(p_wanted, most - queued);
END $$;

-- What a job takes of its client's share: the longest it may run, in microseconds at a reference price, over its weight.
-- Nobody can understate it, for the job would be killed, and who overstates it has the money held.
CREATE OR REPLACE FUNCTION gpu_cost(p_budget numeric, p_priority int) RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT ceil(greatest(1000, least(div(p_budget, parameter_value('queue_reference_nano') * 1000), parameter_value('max_job_seconds') * 1000000))
              / least(parameter_value('priority_weight_cap'), power(2::numeric, p_priority / 2.0)))::bigint
$$;

-- Slots of a miner by who may fill them now: an order that occupies devices, or the pool (NULL) for what is free.
CREATE OR REPLACE FUNCTION gpu_slots(m gpu_miner) RETURNS TABLE (holder uuid, slots int) LANGUAGE sql STABLE
  SET enable_seqscan = off SET enable_bitmapscan = off AS $$
  WITH device AS (
    SELECT (SELECT o.holder FROM gpu_occupancy o
             WHERE uuidrange(o.device_id, o.device_id, '[]') && uuidrange(d.id, d.id, '[]') AND o.during @> clock_timestamp()) AS holder
      FROM gpu_device d WHERE d.miner_id = m.id AND d.active),
  shared AS (SELECT holder, m.concurrency * count(*) / sum(count(*)) OVER () AS slots FROM device GROUP BY holder)
  SELECT holder, CASE WHEN holder IS NULL THEN floor(slots) ELSE greatest(1, floor(slots)) END::int FROM shared
  UNION ALL
  SELECT NULL, m.concurrency WHERE NOT EXISTS (SELECT 1 FROM device)
$$;

-- Does the queue hold something for this miner now?
CREATE OR REPLACE FUNCTION gpu_has_work(m gpu_miner, p_kinds text[]) RETURNS boolean LANGUAGE sql STABLE
  SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $$
  SELECT EXISTS (
    SELECT 1 FROM gpu_classes_of(m, p_kinds) c JOIN gpu_slots(m) s ON s.holder IS NOT DISTINCT FROM c.holder AND s.slots > 0
     CROSS JOIN LATERAL (
       SELECT 1 FROM gpu_job_queue q WHERE q.job_class_id = c.id AND q.expires_at > statement_timestamp()
          AND (c.named OR q.max_price >= m.price) AND q.avoid IS DISTINCT FROM m.id ORDER BY q.rank LIMIT 1) q)
$$;

-- Take up to p_most of the best ranked jobs of these classes that the miner may run out of the queue -> their ids in order.
-- Heads are read without a lock and then locked one by one: a claim locks what it takes, however many classes it looked at.
CREATE OR REPLACE FUNCTION gpu_take(m gpu_miner, p_classes int[], p_named boolean[], p_pool boolean, p_most int) RETURNS uuid[] LANGUAGE plpgsql
  SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
  SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
  taken uuid[] := '{}'; more uuid[]; upto bigint := 0; reached bigint; from_classes int[] := '{}'; classes int[]; seen int; slack int := 4;
BEGIN
  LOOP
    WITH head AS MATERIALIZED (
      SELECT q.* FROM unnest(p_classes, p_named) AS c(id, named) CROSS JOIN LATERAL (
        SELECT x.job_id, x.rank, x.since FROM gpu_job_queue x
         WHERE x.job_class_id = c.id AND x.expires_at > clock_timestamp()
           AND (c.named OR x.max_price >= m.price)   -- a named offer's price was checked, and holds since
           AND x.avoid IS DISTINCT FROM m.id
         ORDER BY x.rank, x.since LIMIT p_most + slack) q
       ORDER BY q.rank, q.since LIMIT p_most + slack),
    best AS MATERIALIZED (
      SELECT x.job_id FROM head h JOIN gpu_job_queue x ON x.job_id = h.job_id
       ORDER BY h.rank, h.since LIMIT p_most - cardinality(taken) FOR UPDATE OF x SKIP LOCKED),
    gone AS (DELETE FROM gpu_job_queue x USING best b WHERE x.job_id = b.job_id RETURNING x.job_id, x.rank, x.since, x.job_class_id)
    SELECT (SELECT count(*) FROM head), coalesce(array_agg(job_id ORDER BY rank, since), '{}'), coalesce(max(rank), 0),
           coalesce(array_agg(DISTINCT job_class_id), '{}') INTO seen, more, reached, classes FROM gone;
    taken := taken || more;
    upto := greatest(upto, reached);
    from_classes := from_classes || classes;
    EXIT WHEN cardinality(taken) >= p_most OR seen < p_most + slack;
    slack := slack * 8;   -- rivals hold what this one saw
  END LOOP;
  IF upto > 0 THEN   -- what could have been taken instead ranks behind it; a second of lag is not worth a write
    UPDATE gpu_job_class SET vtime = upto, vtime_at = clock_timestamp() WHERE id IN (
      SELECT id FROM gpu_job_class c WHERE c.id = ANY (p_classes)
         AND c.vtime < upto - CASE WHEN c.id = ANY (from_classes) THEN 0 ELSE 1000000 END FOR NO KEY UPDATE SKIP LOCKED);
    UPDATE gpu_miner SET vtime = upto WHERE id = m.id AND vtime < upto AND p_pool;
  END IF;
  RETURN taken;
END $$;

-- Jobs whose order is over: queued ones can never run and expire, running ones are canceled. Their order paid: no money moves.
CREATE OR REPLACE FUNCTION gpu_end_order_jobs(p_limit int) RETURNS int LANGUAGE plpgsql SET enable_seqscan = off AS $$
DECLARE due uuid[];
BEGIN
  SELECT array_agg(id) INTO due FROM (
    SELECT j.id FROM gpu_job j WHERE j.order_id IS NOT NULL AND j.state IN ('queued', 'leased', 'running')
       AND NOT EXISTS (SELECT 1 FROM gpu_occupancy o WHERE o.holder = j.order_id AND upper(o.during) > clock_timestamp())
     ORDER BY j.id LIMIT p_limit FOR NO KEY UPDATE SKIP LOCKED) x;
  -- As in gpu_cancel: a claim that holds the queue row waits for the job, and then finds it over.
  DELETE FROM gpu_job_queue WHERE job_id IN (SELECT job_id FROM gpu_job_queue WHERE job_id = ANY (due) FOR UPDATE SKIP LOCKED);
  UPDATE gpu_job SET state = CASE WHEN state = 'queued' THEN 'expired' ELSE 'canceled' END, finished_at = clock_timestamp(),
         units_ms = CASE WHEN state = 'running' THEN least((extract(epoch FROM clock_timestamp() - started_at) * 1000)::bigint, max_ms) ELSE 0 END,
         lease_expires_at = NULL, error_code = 'order.ended', error_message = 'the order that pays for this job is over'
   WHERE id = ANY (due);
  RETURN coalesce(array_length(due, 1), 0);
END $$;
