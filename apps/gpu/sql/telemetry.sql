-- What the sensors of devices said: a row per heartbeat and device, in one partition per month (UTC). Partitions are made
-- ahead by a task and dropped after `telemetry_days`; what was rolled up (5 minutes, hours) stays for `rollup_days`.
-- No foreign key: a row comes only of a device that its own miner's beat has just updated, and devices are never deleted.
CREATE TABLE IF NOT EXISTS gpu_telemetry (
  device_id uuid NOT NULL, at timestamptz NOT NULL, utilization real, memory_used_mb int, temperature_c real, power_w real,
  clock_mhz int, memory_clock_mhz int, ecc_errors bigint, latency_ms real, throttle text[]
) PARTITION BY RANGE (at);
CREATE INDEX IF NOT EXISTS telemetry_of_device ON gpu_telemetry (device_id, at);
COMMENT ON TABLE gpu_telemetry IS 'app: SELECT, INSERT';
-- figures: {metric: [min, mean, max, last, samples]} of the span of so many seconds that begins at `at`.
CREATE TABLE IF NOT EXISTS gpu_telemetry_rollup (
  device_id uuid NOT NULL, seconds int NOT NULL, at timestamptz NOT NULL, figures jsonb NOT NULL,
  PRIMARY KEY (device_id, seconds, at));
CREATE INDEX IF NOT EXISTS telemetry_rollup_age ON gpu_telemetry_rollup (at);
CREATE TABLE IF NOT EXISTS gpu_telemetry_rolled (seconds int PRIMARY KEY, upto timestamptz NOT NULL);

CREATE OR REPLACE FUNCTION gpu_telemetry_name(p_moment timestamptz) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT 'gpu_telemetry_' || to_char(p_moment AT TIME ZONE 'UTC', 'YYYYMM')
$$;

-- The partition of a month. Attached, not created in place: only then do heartbeats go on meanwhile.
CREATE OR REPLACE FUNCTION gpu_telemetry_partition(p_moment timestamptz) RETURNS void LANGUAGE plpgsql
  SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE name text := gpu_telemetry_name(p_moment); first timestamp := date_trunc('month', p_moment AT TIME ZONE 'UTC');
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('gpu_telemetry_partition', 0));
  IF to_regclass(name) IS NULL THEN
    EXECUTE format('CREATE TABLE %I (LIKE gpu_telemetry INCLUDING INDEXES)', name);
    EXECUTE format('ALTER TABLE gpu_telemetry ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)', name,
                   first AT TIME ZONE 'UTC', (first + interval '1 month') AT TIME ZONE 'UTC');
  END IF;
END $$;

-- Partitions for this month and the next two; what is older than its retention goes -> how many months were dropped.
-- Dropping waits for whoever reads the table, and all would wait behind it: for two seconds only, then the next run.
CREATE OR REPLACE FUNCTION gpu_telemetry_keep() RETURNS int LANGUAGE plpgsql
  SECURITY DEFINER SET search_path = public, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
  old text; dropped int := 0; today timestamp := clock_timestamp() AT TIME ZONE 'UTC';
  raw timestamp := today - parameter_value('telemetry_days') * interval '1 day';
BEGIN
  PERFORM gpu_telemetry_partition((date_trunc('month', today) + n * interval '1 month') AT TIME ZONE 'UTC') FROM generate_series(0, 2) n;
  FOR old IN SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
              WHERE i.inhparent = 'gpu_telemetry'::regclass AND to_date(right(c.relname, 6), 'YYYYMM') + interval '1 month' <= raw
              ORDER BY 1 LOOP
    BEGIN
      EXECUTE format('DROP TABLE %I', old);
      dropped := dropped + 1;
    EXCEPTION WHEN lock_not_available THEN EXIT;
    END;
  END LOOP;
  DELETE FROM gpu_telemetry_rollup WHERE at < clock_timestamp() - parameter_value('rollup_days') * interval '1 day';
  RETURN dropped;
END $$;

-- A beat's samples: the device's latest, and its history. Only of the miner's own devices, each once.
CREATE OR REPLACE FUNCTION gpu_note_samples(p_miner uuid, p_moment timestamptz, p_samples jsonb) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF to_regclass(gpu_telemetry_name(p_moment)) IS NULL THEN    -- the task that makes them ahead has not run for months
    PERFORM gpu_telemetry_partition(p_moment);
  END IF;
  WITH seen AS (
    UPDATE gpu_device d SET utilization = x.utilization, memory_used_mb = x.memory_used_mb,
           temperature_c = x.temperature_c, power_w = x.power_w, sampled_at = p_moment
      FROM jsonb_populate_recordset(NULL::gpu_telemetry, p_samples) x WHERE d.id = x.device_id AND d.miner_id = p_miner RETURNING x.*)
  INSERT INTO gpu_telemetry (device_id, at, utilization, memory_used_mb, temperature_c, power_w, clock_mhz, memory_clock_mhz,
                             ecc_errors, latency_ms, throttle)
  SELECT device_id, p_moment, utilization, memory_used_mb, temperature_c, power_w, clock_mhz, memory_clock_mhz,
         ecc_errors, latency_ms, throttle FROM seen;
END $$;

-- By way of numeric: a real widened to a double shows digits that nobody measured.
CREATE OR REPLACE FUNCTION gpu_figures(t gpu_telemetry) RETURNS TABLE (metric text, value float8) LANGUAGE sql IMMUTABLE AS $$
  SELECT metric, value::float8 FROM (VALUES
    ('utilization', t.utilization::numeric), ('memory_used_mb', t.memory_used_mb), ('temperature_c', t.temperature_c::numeric),
    ('power_w', t.power_w::numeric), ('clock_mhz', t.clock_mhz), ('memory_clock_mhz', t.memory_clock_mhz), ('ecc_errors', t.ecc_errors),
    ('latency_ms', t.latency_ms::numeric), ('throttled', (cardinality(t.throttle) > 0)::int)
  ) AS f(metric, value) WHERE f.value IS NOT NULL
$$;

-- Roll up what is over: spans that ended half a minute ago, when every beat of them is committed. At most a day at once.
CREATE OR REPLACE FUNCTION gpu_telemetry_roll() RETURNS int LANGUAGE plpgsql AS $$
DECLARE span interval; since timestamptz; until timestamptz; n int; total int := 0; s int;
BEGIN
  FOREACH s IN ARRAY ARRAY[300, 3600] LOOP
    span := s * interval '1 second';
    INSERT INTO gpu_telemetry_rolled SELECT s, date_bin(span, min(at), 'epoch') FROM gpu_telemetry HAVING min(at) IS NOT NULL
      AND NOT EXISTS (SELECT 1 FROM gpu_telemetry_rolled WHERE seconds = s) ON CONFLICT DO NOTHING;
    SELECT upto INTO since FROM gpu_telemetry_rolled WHERE seconds = s FOR UPDATE;
    until := least(date_bin(span, clock_timestamp() - interval '30 seconds', 'epoch'), since + interval '1 day');
    CONTINUE WHEN since IS NULL OR until <= since;
    INSERT INTO gpu_telemetry_rollup (device_id, seconds, at, figures)
    SELECT x.device_id, s, x.bucket, jsonb_object_agg(x.metric, jsonb_build_array(x.lo, x.mean, x.hi, x.last, x.n))
      FROM (SELECT t.device_id, date_bin(span, t.at, 'epoch') AS bucket, f.metric, min(f.value) AS lo, avg(f.value) AS mean,
                   max(f.value) AS hi, (array_agg(f.value ORDER BY t.at DESC))[1] AS last, count(*) AS n
              FROM gpu_telemetry t CROSS JOIN LATERAL gpu_figures(t) f WHERE t.at >= since AND t.at < until GROUP BY 1, 2, 3) x
     GROUP BY x.device_id, x.bucket ON CONFLICT (device_id, seconds, at) DO UPDATE SET figures = excluded.figures;
    GET DIAGNOSTICS n = ROW_COUNT;
    total := total + n;
    UPDATE gpu_telemetry_rolled SET upto = until WHERE seconds = s;
  END LOOP;
  RETURN total;
END $$;

-- Whose figures they are: of the device's owner and of operators always, of a client while the device is let to him alone.
-- Nobody else's: how busy a card is tells what its present client does.
CREATE OR REPLACE FUNCTION gpu_telemetry_span(p_user uuid, p_device uuid) RETURNS tstzrange LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN p_user IS NULL OR m.owner_id = p_user THEN tstzrange(NULL, NULL)
         ELSE (SELECT o.during FROM gpu_occupancy o WHERE o.device_id = d.id AND o.client_id = p_user
                AND lower(o.during) <= clock_timestamp() ORDER BY lower(o.during) DESC LIMIT 1) END
    FROM gpu_device d JOIN gpu_miner m ON m.id = d.miner_id WHERE d.id = p_device
$$;

-- Windows of p_step seconds from p_from until p_to, each with min, mean, max and last of every metric; p_step 0: the samples.
-- p_user NULL: an operator asks. Spans of five minutes and of hours come rolled up, what is not yet rolled up from the samples.
CREATE OR REPLACE FUNCTION gpu_device_telemetry(p_user uuid, p_device uuid, p_from timestamptz, p_to timestamptz, p_step int)
RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE
  span tstzrange := gpu_telemetry_span(p_user, p_device); step interval := p_step * interval '1 second'; most int := 2000;
  base int := CASE WHEN p_step = 0 THEN NULL WHEN p_step % 3600 = 0 THEN 3600 WHEN p_step % 300 = 0 THEN 300 END;
  edge timestamptz; items json; counted int;
BEGIN
  IF span IS NULL THEN
    PERFORM trading_refuse(404, 'device.unknown', 'there is no such device, or its telemetry is not yours to see');
  ELSIF p_from >= p_to THEN
    PERFORM trading_refuse(422, 'request.invalid', 'the span must begin before it ends', 'from');
  ELSIF p_step > 0 AND p_to - p_from > step * most THEN
    PERFORM trading_refuse(422, 'telemetry.too_many', format('at most %s windows at once: take a longer step', most), 'step');
  END IF;
  IF p_step = 0 THEN
    SELECT count(*), json_agg(json_strip_nulls(row_to_json(t)) ORDER BY t.at) INTO counted, items FROM (
      SELECT at, utilization, memory_used_mb, temperature_c, power_w, clock_mhz, memory_clock_mhz, ecc_errors, latency_ms, throttle
        FROM gpu_telemetry WHERE device_id = p_device AND at >= p_from AND at < p_to AND span @> at ORDER BY at LIMIT most + 1) t;
    IF counted > most THEN
      PERFORM trading_refuse(422, 'telemetry.too_many', format('more than %s samples: take a shorter span', most), 'to');
    END IF;
  ELSE
    -- Whole windows; one that reaches out of a client's time would tell of the time before or after.
    p_from := date_bin(step, p_from, 'epoch');
    p_to := date_bin(step, p_to - interval '1 microsecond', 'epoch') + step;
    SELECT upto INTO edge FROM gpu_telemetry_rolled WHERE seconds = base;
    WITH parts AS (
      SELECT r.at, f.key AS metric, (f.value->>0)::float8 AS lo, (f.value->>1)::float8 AS mean, (f.value->>2)::float8 AS hi,
             (f.value->>3)::float8 AS last, (f.value->>4)::int AS n
        FROM gpu_telemetry_rollup r CROSS JOIN LATERAL jsonb_each(r.figures) f
       WHERE r.device_id = p_device AND r.seconds = base AND r.at >= p_from AND r.at < least(p_to, edge)
      UNION ALL
      SELECT t.at, f.metric, f.value, f.value, f.value, f.value, 1 FROM gpu_telemetry t CROSS JOIN LATERAL gpu_figures(t) f
       WHERE t.device_id = p_device AND t.at >= greatest(p_from, edge) AND t.at < p_to),
    windows AS (
      SELECT date_bin(step, at, 'epoch') AS at, metric, min(lo) AS lo, sum(mean * n) / sum(n) AS mean, max(hi) AS hi,
             (array_agg(last ORDER BY parts.at DESC))[1] AS last, sum(n) AS n
        FROM parts GROUP BY 1, 2)
    SELECT json_agg(json_build_object('at', w.at, 'samples', w.n, 'metrics', w.metrics) ORDER BY w.at) INTO items FROM (
      SELECT at, max(n) AS n, json_object_agg(metric, json_build_object('min', lo, 'avg', round(mean::numeric, 3), 'max', hi, 'last', last)) AS metrics
        FROM windows WHERE span @> tstzrange(at, at + step) GROUP BY at) w;
  END IF;
  RETURN json_build_object('device', p_device, 'from', p_from, 'to', p_to, 'step', p_step, 'items', coalesce(items, '[]'));
END $$;
SELECT gpu_telemetry_partition((date_trunc('month', clock_timestamp() AT TIME ZONE 'UTC') + n * interval '1 month') AT TIME ZONE 'UTC')
  FROM generate_series(0, 2) n;
