-- Advice from what was measured: what fits a device, how many slots each kind of job needs, whether the GPUs are well.
-- The formulas are published in docs/fleet.md.

-- Does a dense transformer fit the device's free memory? Bytes:
--   weights  = parameters * bits / 8; quantised weights carry a scale of 16 bits for every 32 of them
--   cache    = 2 (keys, values) * layers * width * 2 bytes, for every token of the context of every sequence of the batch
--   overhead = 1 GiB for the driver's context and workspaces, and a twentieth of the weights
-- Layers and width not given are those of 12 * layers * width^2 = parameters with width = 128 * layers.
CREATE OR REPLACE FUNCTION gpu_fit(p_device uuid, p jsonb) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
  d gpu_device; fresh boolean; free float8; parameters float8 := (p->>'parameters_b')::float8 * 1e9;
  layers float8 := coalesce((p->>'layers')::float8, greatest(1, round((parameters / (12 * 128 * 128)) ^ (1 / 3.0))));
  token float8 := 2 * layers * coalesce((p->>'width')::float8, 128 * layers) * 2; mib float8 := 1048576;
  cache float8 := token * (p->>'context')::float8 * (p->>'batch')::float8; kinds json; best text; x record; words text;
BEGIN
  SELECT * INTO d FROM gpu_device WHERE id = p_device AND active;
  IF NOT FOUND THEN PERFORM trading_refuse(404, 'device.unknown', 'there is no such device'); END IF;
  fresh := coalesce(d.memory_used_mb IS NOT NULL AND d.sampled_at > clock_timestamp() - interval '5 minutes', false);
  free := greatest(0, d.memory_mb - CASE WHEN fresh THEN d.memory_used_mb ELSE 0 END) * mib;
  WITH types (name, bits, place) AS (VALUES ('fp32', 32.0, 1), ('bf16', 16.0, 2), ('fp16', 16.0, 3), ('int8', 8.5, 4), ('q5', 5.5, 5), ('int4', 4.5, 6)),
  needs AS (SELECT t.*, parameters * bits / 8 AS weights, parameters * bits / 8 * 1.05 + 1024 * mib AS fixed FROM types t)
  SELECT json_object_agg(name, json_build_object(
           'fits', fixed + cache <= free, 'needs_mb', ceil((fixed + cache) / mib), 'weights_mb', ceil(weights / mib),
           'largest_batch', greatest(0, floor((free - fixed) / (token * (p->>'context')::float8)))::bigint) ORDER BY place),
         (array_agg(name ORDER BY place) FILTER (WHERE fixed + cache <= free))[1] INTO kinds, best FROM needs;
  SELECT (kinds->(p->>'dtype')->>'fits')::boolean AS fits, kinds->(p->>'dtype')->>'needs_mb' AS needs INTO x;
  words := format('%s with %s tokens in each of %s sequences needs %s MiB (weights %s, cache %s), %s MiB are free', p->>'dtype', p->>'context',
                  p->>'batch', x.needs, kinds->(p->>'dtype')->>'weights_mb', ceil(cache / mib), floor(free / mib));
  RETURN json_build_object(
    'device', d.id, 'fits', x.fits, 'reason', words, 'free_mb', floor(free / mib), 'measured_at', CASE WHEN fresh THEN d.sampled_at END,
    'cache_mb', ceil(cache / mib), 'layers', layers, 'best', best, 'largest_batch', (kinds->(p->>'dtype')->>'largest_batch')::bigint, 'types', kinds);
END $$;

-- The load of each kind, once a minute: what waits, the slots of the miners that work on it, how many of those are busy,
-- and what came, ended and how long it ran since the record before.
CREATE TABLE IF NOT EXISTS gpu_load (
  kind varchar(40) NOT NULL, at timestamptz NOT NULL, seconds float8 NOT NULL, queued int NOT NULL, slots int NOT NULL, busy int NOT NULL,
  arrived int NOT NULL, served int NOT NULL, run_seconds float8 NOT NULL, PRIMARY KEY (kind, at));

CREATE OR REPLACE FUNCTION gpu_record_load() RETURNS int LANGUAGE plpgsql AS $$
DECLARE moment timestamptz := clock_timestamp(); since timestamptz; n int;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('gpu_load', 0));
  SELECT coalesce(max(at), moment - interval '1 minute') INTO since FROM gpu_load WHERE at > moment - interval '5 minutes';
  INSERT INTO gpu_load
  WITH kinds AS (SELECT DISTINCT unnest(kinds) AS kind FROM gpu_miner UNION SELECT DISTINCT kind FROM gpu_job_class),
  held AS (SELECT miner_id, count(*) AS busy FROM gpu_job WHERE state IN ('leased', 'running') GROUP BY 1),
  able AS (SELECT k.kind, sum(m.concurrency) AS slots, sum(least(coalesce(h.busy, 0), m.concurrency)) AS busy
             FROM kinds k JOIN gpu_miner m ON k.kind = ANY (m.kinds) AND m.state = 'online' LEFT JOIN held h ON h.miner_id = m.id GROUP BY 1),
  waits AS (SELECT c.kind, count(*) AS queued FROM gpu_job_queue q JOIN gpu_job_class c ON c.id = q.job_class_id GROUP BY 1),
  came AS (SELECT kind, count(*) AS arrived FROM gpu_job WHERE created_at > since AND created_at <= moment GROUP BY 1),
  went AS (SELECT kind, count(*) AS served, sum(extract(epoch FROM finished_at - coalesce(started_at, leased_at))) AS ran
             FROM gpu_job WHERE finished_at > since AND finished_at <= moment AND state = 'completed' GROUP BY 1)
  SELECT k.kind, moment, extract(epoch FROM moment - since), coalesce(w.queued, 0), coalesce(a.slots, 0), coalesce(a.busy, 0),
         coalesce(c.arrived, 0), coalesce(g.served, 0), coalesce(g.ran, 0)
    FROM kinds k LEFT JOIN able a USING (kind) LEFT JOIN waits w USING (kind) LEFT JOIN came c USING (kind) LEFT JOIN went g USING (kind);
  GET DIAGNOSTICS n = ROW_COUNT;
  DELETE FROM gpu_load WHERE at < moment - interval '8 days';
  RETURN n;
END $$;

-- The advice that the recorded load of a kind gives, replayed from p_from on: nothing but the records and the parameters
-- decide. More slots above `scale_up_percent` or with more than `scale_queue_factor` jobs queued per slot: as many as bring
-- the load to `scale_target_percent`; a fifth fewer below `scale_down_percent` with nothing queued; after either, a pause.
CREATE OR REPLACE FUNCTION gpu_scaling(p_kind text, p_from timestamptz, p_to timestamptz)
RETURNS TABLE (at timestamptz, action text, slots int, advised int, reason text) LANGUAGE plpgsql STABLE AS $$
DECLARE
  l gpu_load; pause interval := parameter_value('scale_cooldown_seconds') * interval '1 second'; quiet_until timestamptz := '-infinity';
  up float8 := parameter_value('scale_up_percent'); down float8 := parameter_value('scale_down_percent');
  target float8 := parameter_value('scale_target_percent'); factor float8 := parameter_value('scale_queue_factor'); load float8;
BEGIN
  FOR l IN SELECT * FROM gpu_load x WHERE x.kind = p_kind AND x.at > p_from AND x.at <= p_to ORDER BY x.at LOOP
    CONTINUE WHEN l.at < quiet_until;
    load := CASE WHEN l.slots > 0 THEN 100.0 * l.busy / l.slots ELSE 0 END;
    at := l.at; slots := l.slots; action := NULL;
    IF load > up THEN
      action := 'up'; reason := format('%s of %s slots are busy, more than %s %%', l.busy, l.slots, up);
    ELSIF l.queued > factor * l.slots THEN
      action := 'up'; reason := format('%s jobs are queued for %s slots, more than %s for each', l.queued, l.slots, factor);
    ELSIF load < down AND l.queued = 0 AND l.slots > 1 THEN
      action := 'down'; reason := format('%s of %s slots are busy, less than %s %%, and nothing is queued', l.busy, l.slots, down);
    END IF;
    CONTINUE WHEN action IS NULL;
    advised := CASE action WHEN 'down' THEN l.slots - greatest(1, l.slots / 5)
                    ELSE greatest(l.slots + 1, ceil(l.busy * 100 / target), ceil(l.queued / factor)) END;
    quiet_until := l.at + pause;
    RETURN NEXT;
  END LOOP;
END $$;

-- The last quarter of an hour of each kind, the advice it gives, and what waits by class.
CREATE OR REPLACE FUNCTION gpu_capacity(p_moment timestamptz) RETURNS text LANGUAGE sql STABLE AS $$
  WITH seen AS (
    SELECT kind, count(*) AS records, 60 * sum(arrived) / sum(seconds) AS arrivals, 60 * sum(served) / sum(seconds) AS served,
           sum(run_seconds) / nullif(sum(served), 0) AS mean, (array_agg(x ORDER BY at DESC))[1] AS last
      FROM gpu_load x WHERE at > p_moment - interval '15 minutes' AND at <= p_moment GROUP BY kind)
  SELECT json_build_object('as_of', p_moment, 'kinds', coalesce((SELECT json_agg(json_build_object(
      'kind', kind, 'queued', (last).queued, 'slots', (last).slots, 'busy', (last).busy,
      'utilization', CASE WHEN (last).slots > 0 THEN round(100.0 * (last).busy / (last).slots, 1) END,
      'arrivals_per_minute', round(arrivals::numeric, 3), 'served_per_minute', round(served::numeric, 3), 'mean_seconds', round(mean::numeric, 3),
      'wait_seconds', CASE WHEN served > 0 THEN round((60 * (last).queued / served)::numeric, 1) END,
      'advice', CASE WHEN records < 5 THEN json_build_object('action', 'none', 'reason', format('insufficient data: %s of 5 records', records))
        ELSE coalesce((SELECT json_build_object('action', s.action, 'slots', s.slots, 'advised', s.advised, 'reason', s.reason, 'at', s.at)
                         FROM gpu_scaling(kind, p_moment - interval '1 day', p_moment) s
                        WHERE s.at > p_moment - greatest(parameter_value('scale_cooldown_seconds'), 60) * interval '1 second' ORDER BY s.at DESC LIMIT 1),
                      json_build_object('action', 'hold', 'reason', 'the load lies between the thresholds')) END) ORDER BY kind) FROM seen), '[]'),
    'classes', coalesce((SELECT json_agg(json_build_object('kind', kind, 'gpu_model', gpu_model, 'min_vram_mb', min_vram_mb, 'region', region,
                                                           'models', model_names, 'queued', n) ORDER BY n DESC) FROM (
      SELECT c.kind, c.gpu_model, c.min_vram_mb, c.region, c.model_names, count(*) AS n FROM gpu_job_queue q
        JOIN gpu_job_class c ON c.id = q.job_class_id GROUP BY 1, 2, 3, 4, 5 ORDER BY 6 DESC LIMIT 100) c), '[]'))
$$;

-- The last deep look at the platform's own worker. One asks at a time, and the answer holds for a minute.
CREATE TABLE IF NOT EXISTS gpu_probe (id int PRIMARY KEY CHECK (id = 1), asked_at timestamptz NOT NULL, answered_at timestamptz, report jsonb);

CREATE OR REPLACE FUNCTION gpu_probe_ask() RETURNS boolean LANGUAGE sql AS $$
  WITH asked AS (
    INSERT INTO gpu_probe AS p (id, asked_at) VALUES (1, clock_timestamp())
    ON CONFLICT (id) DO UPDATE SET asked_at = clock_timestamp()
     WHERE coalesce(p.answered_at, '-infinity') < clock_timestamp() - interval '1 minute' AND p.asked_at < clock_timestamp() - interval '30 seconds'
    RETURNING 1) SELECT EXISTS (SELECT 1 FROM asked)
$$;

CREATE OR REPLACE FUNCTION gpu_probe_answered() RETURNS boolean LANGUAGE sql AS $$
  SELECT EXISTS (SELECT 1 FROM gpu_probe WHERE answered_at >= asked_at)
$$;

-- How the platform's own devices and the runtimes of the whole fleet are; p_deep: as the last probe really found them.
CREATE OR REPLACE FUNCTION gpu_health(p_deep boolean) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE devices json; kinds json; faults text[] := '{}'; probe gpu_probe; n int; cards int; away int;
BEGIN
  SELECT count(*), count(*) FILTER (WHERE d.kind <> 'cpu'), count(*) FILTER (WHERE m.state <> 'online'),
         coalesce(json_agg(json_build_object(
           'id', d.id, 'model', d.model, 'kind', d.kind, 'miner', m.state, 'memory_mb', d.memory_mb, 'memory_used_mb', d.memory_used_mb,
           'utilization', d.utilization, 'temperature_c', d.temperature_c, 'power_w', d.power_w, 'sampled_at', d.sampled_at) ORDER BY d.id), '[]')
    INTO n, cards, away, devices FROM gpu_device d JOIN gpu_miner m ON m.id = d.miner_id WHERE m.first_party AND d.active;
  SELECT coalesce(json_object_agg(k, json_build_object('miners', miners, 'slots', slots)), '{}') INTO kinds FROM (
    SELECT unnest(m.kinds) AS k, count(*) AS miners, sum(concurrency) AS slots FROM gpu_miner m WHERE state = 'online' GROUP BY 1) x;
  IF n = 0 THEN faults := faults || 'the platform has no worker of its own here'::text;
  ELSIF cards = 0 THEN faults := faults || 'no GPU: the platform''s own workers have processors only'::text; END IF;
  IF away > 0 THEN faults := faults || format('%s of %s devices are not online', away, n); END IF;
  IF p_deep THEN
    SELECT * INTO probe FROM gpu_probe WHERE answered_at > clock_timestamp() - interval '90 seconds';
    IF probe.id IS NULL THEN
      faults := faults || 'no worker answered the probe in time'::text;
    ELSE
      faults := faults || ARRAY(SELECT format('%s: %s', key, value->>'reason') FROM jsonb_each(probe.report->'kinds') WHERE NOT (value->>'ok')::boolean ORDER BY 1)
                       || ARRAY(SELECT format('%s: %s', key, value #>> '{}') FROM jsonb_each(probe.report->'absent') WHERE cards = 0 ORDER BY 1);
    END IF;
  END IF;
  RETURN json_build_object(
    'status', CASE WHEN n = 0 OR away = n OR (p_deep AND probe.id IS NULL) THEN 'unavailable' WHEN cardinality(faults) > 0 THEN 'degraded' ELSE 'ok' END,
    'faults', faults, 'devices', devices, 'kinds', kinds, 'probed_at', probe.answered_at,
    'probe', CASE WHEN probe.id IS NOT NULL THEN json_build_object(   -- not what a job can reach of the host
      'kinds', probe.report->'kinds', 'unavailable', probe.report->'unavailable', 'devices', probe.report->'devices', 'tier', probe.report #> '{sandbox,tier}') END);
END $$;

-- The fleet by region, for the console's map: what every region has and how busy it is; devices of a region up to 300.
CREATE OR REPLACE FUNCTION gpu_fleet() RETURNS text LANGUAGE sql STABLE AS $$
  WITH held AS (SELECT miner_id, count(*) AS busy FROM gpu_job WHERE state IN ('leased', 'running') GROUP BY 1),
  miners AS (
    SELECT m.region, count(*) AS miners, sum(m.concurrency) FILTER (WHERE m.state = 'online') AS slots,
           sum(coalesce(h.busy, 0)) AS busy FROM gpu_miner m LEFT JOIN held h ON h.miner_id = m.id WHERE m.state <> 'offline' GROUP BY 1),
  states AS (SELECT region, json_object_agg(state, n ORDER BY state) AS states FROM (
    SELECT region, state, count(*) AS n FROM gpu_miner WHERE state <> 'offline' GROUP BY 1, 2) s GROUP BY 1),
  shown AS (
    SELECT m.region, d.id, d.model, d.memory_mb, m.name, m.state, d.utilization, EXISTS (
             SELECT 1 FROM gpu_occupancy o WHERE o.device_id = d.id AND o.during @> clock_timestamp()) AS let,
           row_number() OVER (PARTITION BY m.region ORDER BY d.model, d.id) AS place, count(*) OVER w AS devices,
           sum(d.memory_mb) OVER w AS memory_mb_all, avg(d.utilization) FILTER (WHERE m.state = 'online') OVER w AS load
      FROM gpu_device d JOIN gpu_miner m ON m.id = d.miner_id WHERE d.active AND m.state <> 'offline' WINDOW w AS (PARTITION BY m.region)),
  devices AS (
    SELECT region, max(devices) AS devices, max(memory_mb_all) AS memory, max(load) AS load, json_agg(json_build_object(
             'id', id, 'model', model, 'memory_mb', memory_mb, 'miner', name, 'state', state, 'load', round(utilization), 'let', let) ORDER BY place) AS cells
      FROM shown WHERE place <= 300 GROUP BY 1)
  SELECT coalesce(json_agg(json_build_object(
    'region', m.region, 'miners', m.miners, 'states', s.states, 'slots', coalesce(m.slots, 0), 'busy', m.busy,
    'devices', coalesce(d.devices, 0), 'memory_gb', coalesce(d.memory, 0) / 1024, 'load', round(d.load), 'cells', coalesce(d.cells, '[]')) ORDER BY m.region), '[]')::text
    FROM miners m JOIN states s USING (region) LEFT JOIN devices d USING (region)
$$;
