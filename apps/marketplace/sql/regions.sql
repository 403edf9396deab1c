-- Regions of the market: who is there, how healthy, how busy, what they add to a price. Formulas: docs/pricing.md.

CREATE TABLE IF NOT EXISTS marketplace_region (
  code varchar(40) PRIMARY KEY CHECK (code <> ''),
  name varchar(100) NOT NULL,
  latitude numeric(8, 5) CHECK (latitude BETWEEN -90 AND 90),
  longitude numeric(8, 5) CHECK (longitude BETWEEN -180 AND 180),
  status varchar(11) NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'maintenance', 'closed')),
  fee_bps int NOT NULL DEFAULT 0 CHECK (fee_bps BETWEEN 0 AND 2000),
  price_bps int NOT NULL DEFAULT 10000 CHECK (price_bps BETWEEN 1000 AND 100000),
  probe_url varchar(200) NOT NULL DEFAULT '',
  miners int NOT NULL DEFAULT 0, online int NOT NULL DEFAULT 0,
  health numeric(7, 6) CHECK (health BETWEEN 0 AND 1),   -- NULL: nothing to judge by
  load numeric(7, 6) CHECK (load BETWEEN 0 AND 1),
  checked_at timestamptz
);

-- Round trips that a client measured itself: his own, the last 20 of a region.
CREATE TABLE IF NOT EXISTS marketplace_latency (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  client_id uuid NOT NULL REFERENCES accounts_user ON DELETE CASCADE,
  region varchar(40) NOT NULL REFERENCES marketplace_region,
  ms numeric(9, 3) NOT NULL CHECK (ms > 0),
  at timestamptz NOT NULL
);
CREATE INDEX IF NOT EXISTS latency_of_client ON marketplace_latency (client_id, region, id DESC);

-- Health is the lesser of two shares: of the miners that did not sign off, those that answer; of at least five attempts that ended
-- within a day, those that completed or were not the provider's fault. A region that a miner names for the first time gets a row.
CREATE OR REPLACE FUNCTION regions_refresh() RETURNS int LANGUAGE plpgsql AS $$
DECLARE changed int;
BEGIN
  INSERT INTO marketplace_region (code, name) SELECT DISTINCT region, region FROM gpu_miner WHERE region <> '' ORDER BY 1 ON CONFLICT DO NOTHING;
  WITH there AS (
    SELECT region, count(*) AS miners, count(*) FILTER (WHERE state IN ('online', 'suspect', 'draining')) AS online FROM gpu_miner
     WHERE state NOT IN ('offline', 'suspended') GROUP BY region),
  done AS (
    SELECT m.region, sum(x.good) AS good, sum(x.bad) AS bad FROM (
      SELECT miner_id, 1 AS good, 0 AS bad FROM gpu_job WHERE state = 'completed' AND finished_at > statement_timestamp() - interval '1 day'
      UNION ALL SELECT miner_id, 0, 1 FROM gpu_attempt WHERE fault = 'provider' AND ended_at > statement_timestamp() - interval '1 day') x
      JOIN gpu_miner m ON m.id = x.miner_id GROUP BY m.region)
  UPDATE marketplace_region r SET miners = coalesce(t.miners, 0), online = coalesce(t.online, 0), checked_at = clock_timestamp(),
         health = least(t.online::numeric / t.miners, CASE WHEN d.good + d.bad >= 5 THEN d.good::numeric / (d.good + d.bad) END),
         load = l.busy / nullif(l.slots, 0)
    FROM marketplace_region k LEFT JOIN there t ON t.region = k.code LEFT JOIN done d ON d.region = k.code
   CROSS JOIN LATERAL market_load(NULL, k.code) l WHERE k.code = r.code;
  GET DIAGNOSTICS changed = ROW_COUNT;
  RETURN changed;
END $$;

CREATE OR REPLACE FUNCTION region_open(r marketplace_region) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
  SELECT r.status = 'active' AND coalesce(r.health >= 0.5, true)
$$;

-- What a quote and the automatic matching must know of a region. One that nobody described adds nothing and is open.
-- price = ceil(offer's price * price_bps / 10000), and of that fee_bps on top.
CREATE OR REPLACE FUNCTION region_terms(p_code text, OUT fee_bps int, OUT price_bps int, OUT open boolean) LANGUAGE sql STABLE AS $$
  SELECT coalesce(max(r.fee_bps), 0), coalesce(max(r.price_bps), 10000), coalesce(bool_and(region_open(r)), true)
    FROM marketplace_region r WHERE r.code = p_code
$$;

CREATE OR REPLACE FUNCTION region_document(r marketplace_region) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_object('code', r.code, 'name', r.name, 'latitude', r.latitude::float8, 'longitude', r.longitude::float8, 'status', r.status,
    'open', region_open(r), 'health', r.health::float8, 'load', r.load::float8, 'miners', r.miners, 'online', r.online, 'fee_bps', r.fee_bps,
    'price_bps', r.price_bps, 'checked_at', r.checked_at)
$$;

CREATE OR REPLACE FUNCTION regions_shown() RETURNS text LANGUAGE sql STABLE AS $$
  SELECT json_build_object('items', coalesce(json_agg(region_document(r) ORDER BY code), '[]'))::text FROM marketplace_region r
$$;

-- A client's latencies: the median of what he measured himself.
CREATE OR REPLACE FUNCTION latency_of(p_client uuid) RETURNS TABLE (region varchar, ms float8, samples bigint, at timestamptz) LANGUAGE sql STABLE AS $$
  SELECT region, (percentile_disc(0.5) WITHIN GROUP (ORDER BY ms))::float8, count(*), max(at) FROM marketplace_latency WHERE client_id = p_client GROUP BY region
$$;

CREATE OR REPLACE FUNCTION latency_shown(p_client uuid) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT json_build_object('items', coalesce(json_agg(json_build_object('region', r.code, 'probe_url', nullif(r.probe_url, ''), 'ms', l.ms,
           'samples', coalesce(l.samples, 0), 'at', l.at) ORDER BY r.code), '[]'))::text
    FROM marketplace_region r LEFT JOIN latency_of(p_client) l ON l.region = r.code WHERE r.probe_url <> '' OR l.ms IS NOT NULL
$$;

CREATE OR REPLACE FUNCTION latency_note(p_client uuid, p_body jsonb) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM jsonb_object_keys(p_body->'samples') x WHERE NOT EXISTS (SELECT FROM marketplace_region WHERE code = x)) THEN
    PERFORM trading_refuse(422, 'region.unknown', 'there is no such region', 'samples');
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended(p_client::text, 21));   -- the last 20 of one client, counted by one at a time
  INSERT INTO marketplace_latency (client_id, region, ms, at)
  SELECT p_client, x.key, ms::numeric, clock_timestamp() FROM jsonb_each(p_body->'samples') x, jsonb_array_elements_text(x.value) ms;
  DELETE FROM marketplace_latency WHERE id IN (SELECT id FROM (
    SELECT id, row_number() OVER (PARTITION BY region ORDER BY id DESC) AS age FROM marketplace_latency WHERE client_id = p_client) x WHERE age > 20);
  RETURN latency_shown(p_client);
END $$;

-- The open regions that sell p_model (any, when NULL), the best first: healthiest, then nearest to this client as far as he measured,
-- then least busy. Each says in words why it stands where it does.
CREATE OR REPLACE FUNCTION regions_best(p_client uuid, p_model text) RETURNS text LANGUAGE sql STABLE AS $$
  WITH fit AS (
    SELECT r, r.code, r.health, r.load, l.ms, region_open(r) AS open,
           EXISTS (SELECT FROM marketplace_offer o WHERE o.state = 'listed' AND o.region = r.code AND (p_model IS NULL OR lower(o.model) = lower(p_model))) AS sells
      FROM marketplace_region r LEFT JOIN latency_of(p_client) l ON l.region = r.code),
  placed AS (
    SELECT *, CASE WHEN open AND sells THEN row_number() OVER (PARTITION BY open AND sells
             ORDER BY health DESC NULLS LAST, ms NULLS LAST, load NULLS LAST, code) END AS place FROM fit)
  SELECT json_build_object('best', (SELECT code FROM placed WHERE place = 1), 'candidates', coalesce(json_agg(json_build_object(
    'region', code, 'place', place, 'health', health::float8, 'latency_ms', ms, 'load', load::float8, 'why', CASE
      WHEN NOT open THEN CASE WHEN (r).status <> 'active' THEN 'out: the operator set it to ' || (r).status ELSE 'out: health ' || round(health, 3) || ' is below 0.5' END
      WHEN NOT sells THEN 'out: nothing that fits is listed there'
      ELSE concat_ws(', ', coalesce('health ' || round(health, 3), 'health unknown'), coalesce('your median ' || ms || ' ms', 'latency not measured by you'),
                     coalesce('load ' || round(load, 3), 'load unknown')) END) ORDER BY place NULLS LAST, code), '[]'))::text FROM placed
$$;
