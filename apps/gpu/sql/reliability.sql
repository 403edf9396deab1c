-- A miner's reliability from its signed heartbeats and its leases: docs/reliability.md says the same in words.
-- A signed beat vouches for the time since the one before it, for 90 s at most: miners sign each minute.

-- What counts of p_miner (of all, if null) from p_from, a midnight in UTC, until p_until.
CREATE OR REPLACE FUNCTION gpu_reliability_days(p_miner uuid, p_from timestamptz, p_until timestamptz)
RETURNS TABLE (miner uuid, day date, up float8, down float8, completed int, failed int) LANGUAGE sql STABLE AS $$
  WITH spans AS (
    SELECT m.id AS miner, h.at, h.signed, h.gone, extract(epoch FROM h.at - h.since)::float8 AS length,
           core_outage_seconds(h.since, h.at) AS excused
      FROM gpu_miner m CROSS JOIN LATERAL (
        SELECT b.received_at AS at, b.signature <> '' AS signed, lag(b.received_at) OVER w AS since, lag(b.farewell) OVER w AS gone
          FROM gpu_heartbeat b
         WHERE b.miner_id = m.id AND (b.signature <> '' OR b.farewell) AND b.received_at <= p_until
           AND b.received_at >= coalesce((
             SELECT x.received_at FROM gpu_heartbeat x
              WHERE x.miner_id = m.id AND x.received_at < p_from AND (x.signature <> '' OR x.farewell)
              ORDER BY x.received_at DESC LIMIT 1), p_from)
        WINDOW w AS (ORDER BY b.sequence)) h
     WHERE (p_miner IS NULL OR m.id = p_miner) AND h.since IS NOT NULL AND h.at >= p_from),
  facts AS (
    SELECT s.miner, (s.at AT TIME ZONE 'UTC')::date AS day,
           CASE WHEN s.signed AND NOT s.gone THEN least(s.length, 90) ELSE 0 END AS up,
           CASE WHEN s.gone THEN 0 ELSE greatest(s.length - 90 - s.excused, 0) END AS down, 0 AS completed, 0 AS failed
      FROM spans s
    UNION ALL
    SELECT j.miner_id, (j.finished_at AT TIME ZONE 'UTC')::date, 0, 0, 1, 0 FROM gpu_job j
     WHERE j.state = 'completed' AND j.finished_at >= p_from AND j.finished_at <= p_until AND (p_miner IS NULL OR j.miner_id = p_miner)
    UNION ALL
    SELECT a.miner_id, (a.ended_at AT TIME ZONE 'UTC')::date, 0, 0, 0, 1 FROM gpu_attempt a
     WHERE a.fault = 'provider' AND a.ended_at >= p_from AND a.ended_at <= p_until AND (p_miner IS NULL OR a.miner_id = p_miner)
       AND core_outage_seconds(a.leased_at, a.ended_at) = 0)
  SELECT f.miner, f.day, sum(f.up)::float8, sum(f.down)::float8, sum(f.completed)::int, sum(f.failed)::int FROM facts f GROUP BY 1, 2
$$;

-- P(there when needed) x P(completes its leases), each a Beta posterior whose prior has the mean sqrt(1/2) and the
-- weight of two observations, so that nothing known is one half. 95 % interval by the exact variance of the product.
CREATE OR REPLACE FUNCTION gpu_reliability_score(
  p_up float8, p_down float8, p_completed float8, p_failed float8, OUT score float8, OUT low float8, OUT high float8
) LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  a1 float8 := sqrt(2::float8) + p_up; n1 float8 := 2 + p_up + p_down; a2 float8 := sqrt(2::float8) + p_completed;
  n2 float8 := 2 + p_completed + p_failed; half float8;
BEGIN
  score := (a1 / n1) * (a2 / n2);
  half := 1.96 * sqrt(greatest(score * ((a1 + 1) / (n1 + 1)) * ((a2 + 1) / (n2 + 1)) - score * score, 0));
  low := greatest(score - half, 0);
  high := least(score + half, 1);
END $$;

-- A sum over days, each worth half as much per half-life before p_at.
CREATE OR REPLACE FUNCTION gpu_reliability_weight(p_day date, p_at timestamptz) RETURNS float8 LANGUAGE sql STABLE AS $$
  SELECT power(0.5::float8, ((p_at AT TIME ZONE 'UTC')::date - p_day)::float8 / parameter_value('reliability_half_life_days')::float8)
$$;

-- Bring days and scores up to p_until -> how many scores moved by more than a thousandth, each of which is an event.
CREATE OR REPLACE FUNCTION gpu_refresh_reliability(p_until timestamptz) RETURNS int LANGUAGE plpgsql AS $$
DECLARE since timestamptz; moved uuid[];
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('gpu.reliability', 0));
  SELECT coalesce(date_trunc('day', max(reliability_at), 'UTC'), '2020-01-01'::timestamptz) INTO since FROM gpu_miner;
  INSERT INTO gpu_reliability_day (miner_id, day, up_seconds, down_seconds, completed, failed)
  SELECT * FROM gpu_reliability_days(NULL, since, p_until)
  ON CONFLICT (miner_id, day) DO UPDATE SET up_seconds = EXCLUDED.up_seconds, down_seconds = EXCLUDED.down_seconds,
    completed = EXCLUDED.completed, failed = EXCLUDED.failed;
  PERFORM 1 FROM gpu_miner ORDER BY id FOR NO KEY UPDATE;
  WITH fresh AS (
    SELECT m.id, m.reliability AS before, x.samples, CASE WHEN x.samples > 0 THEN s.score END AS score,
           CASE WHEN x.samples > 0 THEN s.low END AS low, CASE WHEN x.samples > 0 THEN s.high END AS high
      FROM gpu_miner m CROSS JOIN LATERAL (
        SELECT coalesce(sum(w * d.up_seconds), 0) / 3600 AS up, coalesce(sum(w * d.down_seconds), 0) / 3600 AS down,
               coalesce(sum(w * d.completed), 0) AS completed, coalesce(sum(w * d.failed), 0) AS failed,
               coalesce(floor(sum(d.up_seconds + d.down_seconds) / 3600) + sum(d.completed + d.failed), 0)::int AS samples
          FROM gpu_reliability_day d, gpu_reliability_weight(d.day, p_until) w
         WHERE d.miner_id = m.id AND d.day <= (p_until AT TIME ZONE 'UTC')::date) x
      CROSS JOIN gpu_reliability_score(x.up, x.down, x.completed, x.failed) s),
  kept AS (
    UPDATE gpu_miner m SET reliability = f.score, reliability_low = f.low, reliability_high = f.high,
           reliability_samples = f.samples, reliability_at = p_until FROM fresh f WHERE f.id = m.id
    RETURNING m.id, f.score, f.before)
  SELECT array_agg(id) INTO moved FROM kept WHERE abs(coalesce(score, -1) - coalesce(before, -1)) > 0.001;
  PERFORM trading_announce('gpu.miner_rated', 'miner:' || i, jsonb_build_object('miner', i)) FROM unnest(moved) i;
  RETURN coalesce(array_length(moved, 1), 0);
END $$;

-- The stored scores beside those that the log gives: of p_miner, or of all.
CREATE OR REPLACE FUNCTION gpu_recompute_reliability(p_miner uuid)
RETURNS TABLE (miner uuid, stored float8[], computed float8[]) LANGUAGE sql STABLE AS $$
  SELECT m.id, ARRAY[m.reliability, m.reliability_low, m.reliability_high, m.reliability_samples],
         CASE WHEN x.samples > 0 THEN ARRAY[s.score, s.low, s.high, x.samples] ELSE ARRAY[NULL, NULL, NULL, 0::float8] END
    FROM gpu_miner m CROSS JOIN LATERAL (
      SELECT coalesce(sum(w * d.up), 0) / 3600 AS up, coalesce(sum(w * d.down), 0) / 3600 AS down,
             coalesce(sum(w * d.completed), 0) AS completed, coalesce(sum(w * d.failed), 0) AS failed,
             coalesce(floor(sum(d.up + d.down) / 3600) + sum(d.completed + d.failed), 0) AS samples
        FROM gpu_reliability_days(m.id, '2020-01-01', m.reliability_at) d, gpu_reliability_weight(d.day, m.reliability_at) w) x
    CROSS JOIN gpu_reliability_score(x.up, x.down, x.completed, x.failed) s
   WHERE m.reliability_at IS NOT NULL AND (p_miner IS NULL OR m.id = p_miner) ORDER BY m.id
$$;

-- The digest of a miner's heartbeats of a day, and the leaf of it in the day's tree.
CREATE OR REPLACE FUNCTION gpu_heartbeat_digest(p_miner uuid, p_day date) RETURNS bytea LANGUAGE sql STABLE AS $$
  SELECT sha256(convert_to(coalesce(string_agg(concat_ws('|', sequence, '0x' || encode(head, 'hex'),
           (extract(epoch FROM received_at) * 1000000)::bigint, signature, farewell::int), E'\n' ORDER BY sequence), ''), 'UTF8'))
    FROM gpu_heartbeat WHERE miner_id = p_miner AND received_at >= p_day::timestamp AT TIME ZONE 'UTC'
     AND received_at < (p_day + 1)::timestamp AT TIME ZONE 'UTC'
$$;
CREATE OR REPLACE FUNCTION gpu_heartbeat_leaf(p_miner uuid, p_day date, p_digest bytea) RETURNS bytea LANGUAGE sql IMMUTABLE AS $$
  SELECT sha256('aitbc.heartbeats'::bytea || uuid_send(p_miner) || convert_to(p_day::text, 'UTF8') || p_digest)
$$;

-- The oldest day that ended an hour ago or more and is not sealed: its miners' digests are kept and their leaves returned.
CREATE OR REPLACE FUNCTION gpu_seal_heartbeats() RETURNS TABLE (day date, leaf bytea) LANGUAGE plpgsql AS $$
DECLARE due date;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('gpu.reliability', 0));
  SELECT coalesce((SELECT max(r.day) + 1 FROM gpu_heartbeat_root r),
                  (SELECT (min(h.received_at) AT TIME ZONE 'UTC')::date FROM gpu_heartbeat h)) INTO due;
  SELECT (min(h.received_at) AT TIME ZONE 'UTC')::date INTO due FROM gpu_heartbeat h WHERE h.received_at >= due::timestamp AT TIME ZONE 'UTC';
  IF due IS NULL OR (due + 1)::timestamp AT TIME ZONE 'UTC' > clock_timestamp() - interval '1 hour' THEN RETURN; END IF;
  INSERT INTO gpu_reliability_day (miner_id, day, up_seconds, down_seconds, completed, failed, digest)
  SELECT m.id, due, 0, 0, 0, 0, gpu_heartbeat_digest(m.id, due) FROM gpu_miner m
   WHERE EXISTS (SELECT 1 FROM gpu_heartbeat h WHERE h.miner_id = m.id AND h.received_at >= due::timestamp AT TIME ZONE 'UTC'
                    AND h.received_at < (due + 1)::timestamp AT TIME ZONE 'UTC')
  ON CONFLICT ON CONSTRAINT gpu_reliability_day_pkey DO UPDATE SET digest = EXCLUDED.digest;
  RETURN QUERY SELECT due, gpu_heartbeat_leaf(d.miner_id, due, d.digest) FROM gpu_reliability_day d
                WHERE d.day = due AND d.digest IS NOT NULL ORDER BY d.miner_id;
END $$;

-- The first sealed day whose heartbeats are not those of its digest.
CREATE OR REPLACE FUNCTION gpu_changed_day(p_miner uuid) RETURNS date LANGUAGE sql STABLE AS $$
  SELECT min(day) FROM gpu_reliability_day
   WHERE miner_id = p_miner AND digest IS NOT NULL AND digest <> gpu_heartbeat_digest(miner_id, day)
$$;

CREATE OR REPLACE FUNCTION gpu_reliability_document(p_miner uuid) RETURNS SETOF json LANGUAGE sql STABLE AS $$
  SELECT json_build_object(
    'miner_id', m.id, 'formula', '1', 'half_life_days', parameter_value('reliability_half_life_days')::int, 'as_of', m.reliability_at,
    'score', coalesce(m.reliability, n.score), 'low', coalesce(m.reliability_low, n.low), 'high', coalesce(m.reliability_high, n.high),
    'samples', m.reliability_samples,
    'days', (SELECT coalesce(json_agg(json_build_object(
                 'day', d.day, 'up_seconds', d.up_seconds, 'down_seconds', d.down_seconds, 'completed', d.completed, 'failed', d.failed,
                 'digest', '0x' || encode(d.digest, 'hex'), 'root', '0x' || encode(r.root, 'hex')) ORDER BY d.day DESC), '[]')
               FROM gpu_reliability_day d LEFT JOIN gpu_heartbeat_root r ON r.day = d.day AND d.digest IS NOT NULL
              WHERE d.miner_id = m.id))
    FROM gpu_miner m, gpu_reliability_score(0, 0, 0, 0) n WHERE m.id = p_miner
$$;

-- A miner's beats of a day after one of them, as JSON, with the sequence of each for the cursor.
CREATE OR REPLACE FUNCTION gpu_heartbeats(p_miner uuid, p_day date, p_signed boolean, p_after text, p_most int)
RETURNS TABLE (sequence bigint, document text) LANGUAGE sql STABLE AS $$
  SELECT h.sequence, json_build_object(
    'sequence', h.sequence, 'previous', '0x' || encode(h.previous, 'hex'), 'body', '0x' || encode(h.body, 'hex'),
    'head', '0x' || encode(h.head, 'hex'), 'received_at', h.received_at, 'signature', nullif(h.signature, ''),
    'signer', '0x' || encode(h.signer, 'hex'), 'farewell', h.farewell)::text
    FROM gpu_heartbeat h
   WHERE h.miner_id = p_miner AND h.received_at >= p_day::timestamp AT TIME ZONE 'UTC'
     AND h.received_at < (p_day + 1)::timestamp AT TIME ZONE 'UTC' AND h.sequence > CASE WHEN p_after ~ '^[0-9]{1,18}$' THEN p_after::bigint ELSE 0 END AND (NOT p_signed OR h.signature <> '')
   ORDER BY h.sequence LIMIT p_most
$$;

-- Miners by the weighted sum that the monolith published, each part from 0 to 100 and shown; reliability is ours, a
-- new miner's counts as one half. A part is neutral where nothing was seen yet.
CREATE OR REPLACE FUNCTION gpu_ranking(p_region text, p_after text, p_most int) RETURNS TABLE (place bigint, document text) LANGUAGE sql STABLE AS $$
  WITH facts AS (
    SELECT m.id, m.name, m.region, m.concurrency AS slots, coalesce(m.reliability, 0.5) AS reliability,
           (SELECT count(*) FROM gpu_job j WHERE j.miner_id = m.id AND j.state IN ('leased', 'running')) AS busy,
           (SELECT avg(d.utilization) FROM gpu_device d WHERE d.miner_id = m.id AND d.active) AS utilization,
           (SELECT coalesce(sum(d.memory_mb), 0) / 1024.0 FROM gpu_device d WHERE d.miner_id = m.id AND d.active) AS gb,
           l.jobs, l.recent, l.success
      FROM gpu_miner m CROSS JOIN LATERAL (
        SELECT coalesce(sum(d.completed + d.failed), 0) AS jobs,
               coalesce(sum(d.completed) FILTER (WHERE d.day >= current_date - 1), 0) / 48.0 AS recent,
               sum(d.completed * exp((d.day - current_date) / 7.0)) / nullif(sum((d.completed + d.failed) * exp((d.day - current_date) / 7.0)), 0) AS success
          FROM gpu_reliability_day d WHERE d.miner_id = m.id) l
     WHERE m.state IN ('online', 'suspect') AND (p_region IS NULL OR m.region = p_region)),
  parts AS (
    SELECT f.*, 100 * f.reliability AS p1,
           0.6 * CASE WHEN f.utilization IS NULL THEN 50 WHEN f.utilization BETWEEN 60 AND 80 THEN 100
                      WHEN f.utilization < 60 THEN f.utilization / 0.6 ELSE (100 - f.utilization) * 5 END + 0.4 * least(100, 10 * f.recent) AS p2,
           0.4 * least(100, 4 * f.gb) + 0.3 * least(100, 25 * f.slots) + 0.3 * 100 * greatest(f.slots - f.busy, 0) / f.slots AS p3,
           CASE WHEN f.jobs < 10 THEN 70 ELSE 100 * f.success END AS p4 FROM facts f),
  scored AS (SELECT p.*, 0.35 * p1 + 0.30 * p2 + 0.20 * p3 + 0.15 * p4 AS score FROM parts p),
  placed AS (SELECT s.*, row_number() OVER (ORDER BY s.score DESC, s.id) AS place FROM scored s)
  SELECT place, json_build_object(
    'place', place, 'miner_id', id, 'name', name, 'region', region, 'score', round(score::numeric, 3),
    'explanation', json_build_object(
      'reliability', json_build_object('weight', 0.35, 'points', round(p1::numeric, 3)),
      'performance', json_build_object('weight', 0.30, 'points', round(p2::numeric, 3)),
      'capacity', json_build_object('weight', 0.20, 'points', round(p3::numeric, 3)),
      'reputation', json_build_object('weight', 0.15, 'points', round(p4::numeric, 3))))::text
    FROM placed WHERE place > CASE WHEN p_after ~ '^[0-9]{1,18}$' THEN p_after::bigint ELSE 0 END ORDER BY place LIMIT p_most
$$;
