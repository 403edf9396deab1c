-- The prices of the market, from what was really sold and what is really listed. Formulas: docs/pricing.md.
-- Hours are UTC. Percentiles are weighted: P10 is the least price at or below which a tenth of the device time was sold
-- (of the devices is listed). What decides no amount (trend, elasticity) is in floating point, the rest is exact.

-- span `hour`: that hour; `day`: the 24 hours that end with it. region '': all of them. model '': all of them, listed only.
CREATE TABLE IF NOT EXISTS marketplace_price (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  span varchar(4) NOT NULL CHECK (span IN ('hour', 'day')),
  hour timestamptz NOT NULL,
  source varchar(6) NOT NULL CHECK (source IN ('traded', 'listed')),
  model varchar(100) NOT NULL,
  region varchar(40) NOT NULL,
  p10 numeric(38, 0) NOT NULL, p50 numeric(38, 0) NOT NULL, p90 numeric(38, 0) NOT NULL, mean numeric(38, 0) NOT NULL,
  weight numeric NOT NULL CHECK (weight > 0),       -- device seconds sold; devices listed
  count bigint NOT NULL CHECK (count > 0),          -- trades; offers
  CONSTRAINT price_in_order CHECK (p10 <= p50 AND p50 <= p90)
);
CREATE UNIQUE INDEX IF NOT EXISTS price_once ON marketplace_price (lower(model), region, source, span, hour);
CREATE INDEX IF NOT EXISTS price_by_model ON marketplace_price (model, hour DESC);
CREATE INDEX IF NOT EXISTS price_by_hour ON marketplace_price (hour, source);

-- What ended in an hour; region '': jobs that no miner ever had.
CREATE TABLE IF NOT EXISTS marketplace_hour (
  hour timestamptz, region varchar(40), completed bigint NOT NULL, failed bigint NOT NULL, canceled bigint NOT NULL, expired bigint NOT NULL,
  ms numeric NOT NULL, billed numeric NOT NULL, fees numeric NOT NULL, PRIMARY KEY (hour, region)
);
-- Hours up to `upto` are final.
CREATE TABLE IF NOT EXISTS marketplace_rollup (one boolean PRIMARY KEY DEFAULT true CHECK (one), upto timestamptz NOT NULL);

-- Completed jobs at the price agreed at the lease. The model is the offer's, else that of a miner whose devices are all of one:
-- of a mixed miner nobody knows which device a job ran on, so its jobs are in no index. Work under an order is paid by the order.
CREATE OR REPLACE FUNCTION market_trades(p_from timestamptz, p_upto timestamptz)
RETURNS TABLE (at timestamptz, model varchar, region varchar, price numeric, ms numeric) LANGUAGE sql STABLE AS $$
  SELECT j.finished_at, coalesce(o.model, d.model), m.region, j.unit_price, j.units_ms::numeric
    FROM gpu_job j JOIN gpu_miner m ON m.id = j.miner_id LEFT JOIN marketplace_offer o ON o.id = j.offer_id
    LEFT JOIN (SELECT miner_id, min(model) AS model FROM gpu_device WHERE active GROUP BY miner_id HAVING count(DISTINCT lower(model)) = 1) d
      ON d.miner_id = j.miner_id
   WHERE j.state = 'completed' AND j.finished_at >= p_from AND j.finished_at < p_upto AND j.units_ms > 0 AND j.unit_price > 0
     AND coalesce(o.model, d.model) IS NOT NULL
  UNION ALL
  SELECT x.ended_at, o.model, m.region, div(x.rate, cardinality(x.devices)), extract(epoch FROM x.ended_at - x.started_at) * 1000 * cardinality(x.devices)
    FROM marketplace_order x JOIN marketplace_offer o ON o.id = x.offer_id JOIN gpu_miner m ON m.id = x.miner_id
   WHERE x.state = 'completed' AND x.ended_at >= p_from AND x.ended_at < p_upto
$$;

CREATE OR REPLACE FUNCTION market_hours(p_from timestamptz, p_upto timestamptz) RETURNS SETOF marketplace_hour LANGUAGE sql STABLE AS $$
  SELECT date_trunc('hour', j.finished_at, 'UTC'), coalesce(m.region, ''), count(*) FILTER (WHERE j.state = 'completed'),
         count(*) FILTER (WHERE j.state = 'failed'), count(*) FILTER (WHERE j.state = 'canceled'), count(*) FILTER (WHERE j.state = 'expired'),
         coalesce(sum(j.units_ms), 0), coalesce(sum(b.total), 0), coalesce(sum(gpu_ceil_div(b.total * j.fee_bps, 10000)), 0)
    FROM gpu_job j LEFT JOIN gpu_miner m ON m.id = j.miner_id
   CROSS JOIN LATERAL (SELECT least(gpu_ceil_div(j.units_ms * j.unit_price, 1000), j.max_price) AS total) b
   WHERE j.finished_at >= p_from AND j.finished_at < p_upto GROUP BY 1, 2
$$;

CREATE OR REPLACE FUNCTION market_roll_hour(p_hour timestamptz, p_listed boolean) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  DELETE FROM marketplace_hour WHERE hour = p_hour;
  INSERT INTO marketplace_hour SELECT * FROM market_hours(p_hour, p_hour + interval '1 hour');
  DELETE FROM marketplace_price WHERE hour = p_hour AND (source = 'traded' OR p_listed);
  INSERT INTO marketplace_price (span, hour, source, model, region, p10, p50, p90, mean, weight, count)
  WITH found AS (
    SELECT s.span, 'traded' AS source, t.model, r.region, t.price, t.ms / 1000 AS weight
      FROM market_trades(p_hour - interval '23 hours', p_hour + interval '1 hour') t
      JOIN (VALUES ('hour', p_hour), ('day', p_hour - interval '23 hours')) s(span, since) ON t.at >= s.since
     CROSS JOIN LATERAL (VALUES (t.region), ('')) r(region)
    UNION ALL
    SELECT 'hour', 'listed', m.model, r.region, o.price, o.device_count FROM marketplace_offer o
     CROSS JOIN LATERAL (VALUES (o.region), ('')) r(region) CROSS JOIN LATERAL (VALUES (o.model), ('')) m(model)
     WHERE p_listed AND o.state = 'listed'),
  placed AS (
    SELECT f.*, sum(weight) OVER (w ORDER BY price) AS below, sum(weight) OVER w AS total
      FROM found f WINDOW w AS (PARTITION BY span, source, lower(model), region))
  SELECT span, p_hour, source, max(model), region, min(price) FILTER (WHERE below * 10 >= total), min(price) FILTER (WHERE below * 2 >= total),
         min(price) FILTER (WHERE below * 10 >= total * 9), round(sum(price * weight) / sum(weight)), sum(weight), count(*)
    FROM placed GROUP BY span, source, lower(model), region;
END $$;

-- Roll the next hour; NULL when the running hour, the last, is done. An hour is final five minutes after its end:
-- a report that was accepted in it has committed by then.
CREATE OR REPLACE FUNCTION market_roll() RETURNS timestamptz LANGUAGE plpgsql AS $$
DECLARE running timestamptz := date_trunc('hour', clock_timestamp(), 'UTC'); following timestamptz; ready timestamptz := clock_timestamp() - interval '65 minutes';
BEGIN
  INSERT INTO marketplace_rollup (upto)
  SELECT date_trunc('hour', coalesce(min(finished_at), clock_timestamp()), 'UTC') - interval '1 hour' FROM gpu_job
   WHERE finished_at > statement_timestamp() - interval '90 days' ON CONFLICT DO NOTHING;
  SELECT upto + interval '1 hour' INTO following FROM marketplace_rollup FOR UPDATE;
  IF following <= ready THEN
    PERFORM market_roll_hour(following, false);
    UPDATE marketplace_rollup SET upto = following;
    RETURN following;
  END IF;
  PERFORM market_roll_hour(h, h = running) FROM generate_series(following, running, interval '1 hour') h;
  RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION market_figures(p marketplace_price) RETURNS json LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN p.id IS NOT NULL THEN json_build_object('p10', ait_money(p.p10), 'p50', ait_money(p.p50), 'p90', ait_money(p.p90),
    'mean', ait_money(p.mean), 'weight', p.weight::float8, 'count', p.count, 'at', p.hour) END
$$;

-- Does a series rise or fall? Least squares over its points in order; |t| >= 2 of at least ten points says so.
CREATE OR REPLACE FUNCTION market_trend(p_points numeric[]) RETURNS json LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN n < 10 THEN json_build_object('status', 'insufficient_data', 'points', n, 'slope', NULL, 't', NULL)
         ELSE json_build_object('status', CASE WHEN slope = 0 OR abs(slope) < 2 * err THEN 'stable' WHEN slope > 0 THEN 'rising' ELSE 'falling' END,
                                'points', n, 'slope', slope / nullif(mean, 0), 't', slope / nullif(err, 0)) END
    FROM (SELECT n, slope, mean, sqrt(greatest(0, (syy - slope * sxy) / nullif(n - 2, 0) / nullif(sxx, 0))) AS err
            FROM (SELECT count(*) AS n, regr_slope(y, x) AS slope, regr_syy(y, x) AS syy, regr_sxy(y, x) AS sxy, regr_sxx(y, x) AS sxx,
                         avg(y)::float8 AS mean FROM unnest(p_points) WITH ORDINALITY u(y, x)) s) e
$$;

-- Hourly traded medians of a model, oldest first, from p_hours before the running hour on.
CREATE OR REPLACE FUNCTION market_medians(p_model text, p_region text, p_hours int) RETURNS numeric[] LANGUAGE sql STABLE AS $$
  SELECT coalesce(array_agg(p50 ORDER BY hour), '{}') FROM marketplace_price
   WHERE lower(model) = lower(p_model) AND region = p_region AND source = 'traded' AND span = 'hour'
     AND hour >= date_trunc('hour', statement_timestamp(), 'UTC') - p_hours * interval '1 hour'
$$;

-- The present: the last 24 hours' trades and the offers listed now, of one model or of all (500 at most, by time sold).
CREATE OR REPLACE FUNCTION market_index(p_model text, p_region text) RETURNS text LANGUAGE sql STABLE AS $$
  WITH fresh AS (
    SELECT DISTINCT ON (lower(model), source) * FROM marketplace_price
     WHERE hour >= date_trunc('hour', statement_timestamp(), 'UTC') - interval '1 hour' AND model <> '' AND region = p_region
       AND (p_model IS NULL OR lower(model) = lower(p_model)) AND (source, span) IN (('traded', 'day'), ('listed', 'hour'))
     ORDER BY lower(model), source, hour DESC),
  both_sides AS (
    SELECT coalesce(t.model, l.model) AS model, t, l FROM (SELECT * FROM fresh WHERE source = 'traded') t
      FULL JOIN (SELECT * FROM fresh WHERE source = 'listed') l ON lower(l.model) = lower(t.model)
     ORDER BY (t.weight) DESC NULLS LAST, 1 LIMIT 500)
  SELECT json_build_object('region', nullif(p_region, ''), 'items', coalesce(json_agg(json_build_object('model', model,
           'traded', (SELECT market_figures(p) FROM marketplace_price p WHERE p.id = (t).id),
           'listed', (SELECT market_figures(p) FROM marketplace_price p WHERE p.id = (l).id),
           'trend', market_trend(market_medians(model, p_region, 168)))
           ORDER BY (t).weight DESC NULLS LAST, model), '[]'))::text
    FROM both_sides
$$;

-- Points per hour for 1 and 7 days, per calendar day for 30 and 90: the row of 23:00 covers its day.
CREATE OR REPLACE FUNCTION market_history(p_model text, p_region text, p_days int) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT json_build_object('model', p_model, 'region', nullif(p_region, ''), 'resolution', CASE WHEN p_days > 7 THEN 'day' ELSE 'hour' END,
    'points', coalesce((SELECT json_agg(json_build_object('at', hour, 'traded', traded, 'listed', listed) ORDER BY hour) FROM (
      SELECT p.hour, min(market_figures(p)::text) FILTER (WHERE source = 'traded')::json AS traded,
             min(market_figures(p)::text) FILTER (WHERE source = 'listed')::json AS listed
        FROM marketplace_price p
       WHERE lower(p.model) = lower(p_model) AND p.region = p_region
         AND p.hour > date_trunc('hour', statement_timestamp(), 'UTC') - p_days * interval '1 day'
         AND (p.source = 'listed' OR p.span = CASE WHEN p_days > 7 THEN 'day' ELSE 'hour' END)
         AND (p_days <= 7 OR extract(hour FROM p.hour AT TIME ZONE 'UTC') = 23)
       GROUP BY p.hour) x), '[]'))::text
$$;

-- Seasonal naive with drift over hourly traded medians (Hyndman, Athanasopoulos: Forecasting, 5.2 and 5.5), season of a day;
-- an hour without a trade keeps the price before it. The back-test forecasts each past hour a day ahead from what was known then.
CREATE OR REPLACE FUNCTION market_forecast(p_model text, p_region text, p_hours int) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE y numeric[]; n int; observed int; drift numeric; sd numeric; seasons numeric; points json; test json;
  last timestamptz := date_trunc('hour', statement_timestamp(), 'UTC') - interval '1 hour'; needed constant int := 96;
BEGIN
  WITH seen AS (
    SELECT hour, p50 FROM marketplace_price
     WHERE lower(model) = lower(p_model) AND region = p_region AND source = 'traded' AND span = 'hour' AND hour <= last
       AND hour > last - interval '28 days'),
  filled AS (
    SELECT h, s.p50, count(s.p50) OVER (ORDER BY h) AS run
      FROM generate_series((SELECT min(hour) FROM seen), last, interval '1 hour') h LEFT JOIN seen s ON s.hour = h)
  SELECT array_agg(price ORDER BY h), (SELECT count(*) FROM seen) INTO y, observed
    FROM (SELECT h, max(p50) OVER (PARTITION BY run) AS price FROM filled) f;
  n := coalesce(array_length(y, 1), 0);
  IF coalesce(observed, 0) < needed THEN
    RETURN json_build_object('status', 'insufficient_data', 'method', NULL, 'observed_hours', coalesce(observed, 0), 'needed_hours', needed,
                             'points', '[]'::json, 'backtest', NULL, 'elasticity', market_elasticity(p_model))::text;
  END IF;
  SELECT avg(y[i] - y[i - 24]), stddev_samp(y[i] - y[i - 24]), count(*) / 24.0 INTO drift, sd, seasons FROM generate_series(25, n) i;
  SELECT json_agg(json_build_object('at', last + h * interval '1 hour', 'price', ait_money(greatest(0, round(mid))),
                    'low', ait_money(greatest(0, round(mid - half))), 'high', ait_money(greatest(0, round(mid + half)))) ORDER BY h) INTO points
    FROM (SELECT h, y[n + h - 24 * k] + k * drift AS mid, 1.96 * sd * sqrt(k * (1 + k / seasons)) AS half
            FROM (SELECT h, div(h - 1, 24) + 1 AS k FROM generate_series(1, p_hours) h) a) b;
  SELECT json_build_object('errors', count(*), 'mean_absolute_error', ait_money(round(avg(abs(d - known)))),
                           'mean_absolute_percentage_error', round(100 * avg(abs(d - known) / y[i]), 4)::float8,
                           'share_inside_interval', round(avg((abs(d - known) <= 1.96 * spread * sqrt(1 + 24.0 / had))::int), 4)::float8) INTO test
    FROM (SELECT i, d, avg(d) OVER w AS known, stddev_samp(d) OVER w AS spread, count(d) OVER w AS had
            FROM (SELECT i, y[i] - y[i - 24] AS d FROM generate_series(25, n) i) x
          WINDOW w AS (ORDER BY i ROWS BETWEEN UNBOUNDED PRECEDING AND 24 PRECEDING)) z WHERE had >= 24;
  RETURN json_build_object('status', 'ok', 'method', 'seasonal naive with drift, 24 h', 'observed_hours', observed, 'needed_hours', needed,
                           'points', points, 'backtest', test, 'elasticity', market_elasticity(p_model))::text;
END $$;

-- How the time sold answers to the price: the slope of ln(device seconds) on ln(mean price) over hours of 90 days, by least squares.
CREATE OR REPLACE FUNCTION market_elasticity(p_model text) RETURNS json LANGUAGE sql STABLE AS $$
  SELECT json_build_object('status', CASE WHEN ok THEN 'ok' ELSE 'insufficient_data' END, 'hours', n, 'needed_hours', 24,
    'value', CASE WHEN ok THEN slope END, 'r_squared', CASE WHEN ok THEN r2 END,
    'error', CASE WHEN ok THEN sqrt(greatest(0, (syy - slope * sxy) / (n - 2) / sxx)) END)
    FROM (SELECT count(*) AS n, regr_slope(q, p) AS slope, regr_r2(q, p) AS r2, regr_syy(q, p) AS syy, regr_sxy(q, p) AS sxy, regr_sxx(q, p) AS sxx,
                 count(*) >= 24 AND regr_sxx(q, p) > 1e-9 AS ok
            FROM (SELECT ln(weight)::float8 AS q, ln(mean)::float8 AS p FROM marketplace_price
                   WHERE lower(model) = lower(p_model) AND region = '' AND source = 'traded' AND span = 'hour'
                     AND hour > statement_timestamp() - interval '90 days') h) r
$$;

-- The market in figures: whole hours up to now. Rolled hours are sums of stored ones, the others are counted from the jobs.
CREATE OR REPLACE FUNCTION market_stats(p_hours int, p_region text) RETURNS text LANGUAGE sql STABLE AS $$
  WITH span AS (
    SELECT date_trunc('hour', statement_timestamp(), 'UTC') - (p_hours - 1) * interval '1 hour' AS since,
           coalesce((SELECT upto + interval '1 hour' FROM marketplace_rollup), '-infinity') AS rolled),
  hours AS (
    SELECT h.* FROM span, marketplace_hour h WHERE h.hour >= since AND h.hour < rolled
    UNION ALL SELECT h.* FROM span CROSS JOIN LATERAL market_hours(greatest(since, rolled), statement_timestamp()) h),
  chosen AS (
    SELECT hour, sum(completed) AS completed, sum(failed) AS failed, sum(canceled) AS canceled, sum(expired) AS expired, sum(ms) AS ms,
           sum(billed) AS billed, sum(fees) AS fees FROM hours WHERE p_region = '' OR region = p_region GROUP BY hour),
  totals AS (
    SELECT coalesce(sum(completed), 0) AS completed, coalesce(sum(failed), 0) AS failed, coalesce(sum(canceled), 0) AS canceled,
           coalesce(sum(expired), 0) AS expired, coalesce(sum(ms), 0) AS ms, coalesce(sum(billed), 0) AS billed, coalesce(sum(fees), 0) AS fees,
           coalesce(array_agg(billed ORDER BY hour), '{}') AS points FROM chosen),
  listed AS (
    SELECT p.* FROM marketplace_price p WHERE p.model = '' AND p.region = p_region AND p.source = 'listed'
       AND p.hour >= date_trunc('hour', statement_timestamp(), 'UTC') - interval '1 hour' ORDER BY hour DESC LIMIT 1)
  SELECT json_build_object('region', nullif(p_region, ''), 'since', since, 'upto', statement_timestamp(),
    'offers', coalesce((SELECT count FROM listed), 0), 'devices', coalesce((SELECT weight FROM listed), 0)::bigint,
    'slots', (l).slots::bigint, 'busy', (l).busy::bigint, 'price', (SELECT market_figures(p) FROM marketplace_price p WHERE p.id = (SELECT id FROM listed)),
    'jobs', json_build_object('completed', completed, 'failed', failed, 'canceled', canceled, 'expired', expired),
    'device_seconds', (ms / 1000)::float8, 'billed', ait_money(billed), 'fees', ait_money(fees), 'paid', ait_money(billed - fees),
    'success_rate', CASE WHEN completed + failed > 0 THEN round(completed / (completed + failed), 6)::float8 END, 'trend', market_trend(points))::text
    FROM span, totals, (SELECT market_load(NULL, nullif(p_region, '')) AS l) x
$$;
