-- How fast and how well the market works, measured; and the alerts when it is worse than the parameters `sla_*` allow.

CREATE TABLE IF NOT EXISTS marketplace_alert (
  id uuid PRIMARY KEY DEFAULT uuidv7(),
  rule varchar(20) NOT NULL,
  region varchar(40) NOT NULL,              -- '': all
  value numeric NOT NULL, threshold numeric NOT NULL,
  opened_at timestamptz NOT NULL,
  closed_at timestamptz
);
-- One open alert of a rule in a region.
CREATE UNIQUE INDEX IF NOT EXISTS alert_once ON marketplace_alert (rule, region) WHERE closed_at IS NULL;

-- Times of jobs that ended, from their rows: submission to lease, lease to start, start to end. `p_by`: region | provider.
CREATE OR REPLACE FUNCTION market_times(p_seconds int, p_by text) RETURNS TABLE (key text, jobs bigint, match float8[], start float8[], run float8[]) LANGUAGE sql STABLE AS $$
  SELECT CASE p_by WHEN 'region' THEN m.region WHEN 'provider' THEN m.id::text ELSE '' END, count(*),
         percentile_disc('{0.5,0.95,0.99}'::float8[]) WITHIN GROUP (ORDER BY extract(epoch FROM j.leased_at - j.created_at)::float8 * 1000),
         percentile_disc('{0.5,0.95,0.99}'::float8[]) WITHIN GROUP (ORDER BY extract(epoch FROM j.started_at - j.leased_at)::float8 * 1000),
         percentile_disc('{0.5,0.95,0.99}'::float8[]) WITHIN GROUP (ORDER BY extract(epoch FROM j.finished_at - j.started_at)::float8 * 1000)
    FROM gpu_job j JOIN gpu_miner m ON m.id = j.miner_id
   WHERE j.state = 'completed' AND j.finished_at > statement_timestamp() - p_seconds * interval '1 second' GROUP BY 1
$$;

CREATE OR REPLACE FUNCTION market_percent(p float8[]) RETURNS json LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN p IS NOT NULL THEN json_build_object('p50', p[1], 'p95', p[2], 'p99', p[3]) END
$$;

CREATE OR REPLACE FUNCTION market_performance(p_seconds int, p_by text, p_search numeric) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT json_build_object('by', p_by, 'seconds', p_seconds, 'search_p95_ms', p_search, 'levels', market_sla(p_search), 'items', coalesce(json_agg(json_build_object(p_by, key, 'jobs', jobs,
    'match_ms', market_percent(match), 'start_ms', market_percent(start), 'completion_ms', market_percent(run)) ORDER BY jobs DESC, key), '[]'))::text
    FROM (SELECT * FROM market_times(p_seconds, p_by) ORDER BY jobs DESC, key LIMIT 200) t
$$;

-- What the thresholds are compared with, of the last hour; NULL: no data, which says nothing. Shares are basis points, times milliseconds.
-- p_search: the p95 of searches as the web processes counted them, or NULL.
CREATE OR REPLACE FUNCTION market_levels(p_search numeric) RETURNS TABLE (rule text, region text, value numeric, threshold numeric, breach boolean) LANGUAGE sql STABLE AS $$
  WITH places AS (SELECT code FROM marketplace_region UNION ALL SELECT ''),
  times AS (SELECT * FROM market_times(3600, 'region') UNION ALL SELECT * FROM market_times(3600, '')),
  ended AS (
    SELECT r.region, count(*) FILTER (WHERE x.state = 'completed') AS good, count(*) FILTER (WHERE x.state = 'bad') AS bad,
           count(*) FILTER (WHERE x.state IN ('failed', 'expired')) AS lost
      FROM (SELECT miner_id, state FROM gpu_job WHERE finished_at > statement_timestamp() - interval '1 hour'
            UNION ALL SELECT miner_id, 'bad' FROM gpu_attempt WHERE fault <> 'client' AND ended_at > statement_timestamp() - interval '1 hour') x
      LEFT JOIN gpu_miner m ON m.id = x.miner_id CROSS JOIN LATERAL (SELECT m.region WHERE m.region IS NOT NULL UNION ALL SELECT '') r(region) GROUP BY 1),
  there AS (
    SELECT r.region, count(*) AS miners, count(*) FILTER (WHERE m.state IN ('online', 'suspect', 'draining')) AS online, NULL
      FROM gpu_miner m CROSS JOIN LATERAL (VALUES (m.region), ('')) r(region) WHERE m.state NOT IN ('offline', 'suspended') GROUP BY 1)
  SELECT l.rule, l.place, l.value, t.threshold, CASE WHEN l.least THEN l.value < t.threshold ELSE l.value > t.threshold END
    FROM (SELECT p.code AS place, v.* FROM places p LEFT JOIN times t ON t.key = p.code LEFT JOIN ended e ON e.region = p.code
            LEFT JOIN there h ON h.region = p.code CROSS JOIN LATERAL market_load(NULL, nullif(p.code, '')) b
           CROSS JOIN LATERAL (VALUES
             ('search_p95_ms', CASE WHEN p.code = '' THEN p_search END, false), ('match_p95_ms', t.match[2]::numeric, false),
             ('start_p95_ms', t.start[2]::numeric, false), ('error_bps', round(10000.0 * e.bad / nullif(e.good + e.bad, 0)), false),
             ('completion_bps', round(10000.0 * e.good / nullif(e.good + e.lost, 0)), true),
             ('uptime_bps', round(10000.0 * h.online / nullif(h.miners, 0)), true), ('capacity_bps', round(10000.0 * b.busy / nullif(b.slots, 0)), false)
           ) v(rule, value, least)) l
    CROSS JOIN LATERAL (SELECT parameter_value('sla_' || l.rule)::numeric AS threshold) t
   WHERE l.rule <> 'search_p95_ms' OR l.place = ''
$$;

-- Open an alert for a new breach, close it once the level is good again. What is unknown changes nothing. -> how many changed.
CREATE OR REPLACE FUNCTION market_watch(p_search numeric) RETURNS int LANGUAGE plpgsql AS $$
DECLARE l record; a marketplace_alert; changed int := 0;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('market.watch', 0));
  FOR l IN SELECT * FROM market_levels(p_search) WHERE value IS NOT NULL ORDER BY rule, region LOOP
    SELECT * INTO a FROM marketplace_alert WHERE rule = l.rule AND region = l.region AND closed_at IS NULL FOR UPDATE;
    IF l.breach AND a.id IS NULL THEN
      INSERT INTO marketplace_alert (rule, region, value, threshold, opened_at) VALUES (l.rule, l.region, l.value, l.threshold, clock_timestamp()) RETURNING * INTO a;
    ELSIF NOT l.breach AND a.id IS NOT NULL THEN
      UPDATE marketplace_alert SET closed_at = clock_timestamp() WHERE id = a.id RETURNING * INTO a;
    ELSE CONTINUE;
    END IF;
    changed := changed + 1;
    PERFORM trading_announce('market.alert', 'alert:' || a.id, jsonb_build_object('alert', a.id, 'rule', a.rule, 'region', nullif(a.region, ''),
      'state', CASE WHEN a.closed_at IS NULL THEN 'open' ELSE 'closed' END, 'value', l.value, 'threshold', l.threshold));
  END LOOP;
  RETURN changed;
END $$;

CREATE OR REPLACE FUNCTION market_sla(p_search numeric) RETURNS json LANGUAGE sql STABLE AS $$
  SELECT coalesce(json_agg(json_build_object('rule', l.rule, 'region', nullif(l.region, ''), 'value', l.value::float8,
    'threshold', l.threshold::float8, 'state', CASE WHEN l.value IS NULL THEN 'unknown' WHEN l.breach THEN 'breach' ELSE 'ok' END,
    'alert_since', a.opened_at) ORDER BY l.rule, l.region), '[]')
    FROM market_levels(p_search) l LEFT JOIN marketplace_alert a ON a.rule = l.rule AND a.region = l.region AND a.closed_at IS NULL
$$;
