-- Reputation: 0 to 1000, new people at 500. A fold over append-only events (deals, disputes, reviews, measured hardware),
-- so that anybody with the events gets the same score; docs/reputation.md has the formulas and where they come from.
-- A user's events are written under the lock of his row of sums, so that they have one order.

-- The one table of levels. `max_jobs`: held at once by one miner; the discount is a share of the platform's fee.
CREATE OR REPLACE FUNCTION reputation_levels() RETURNS TABLE (level text, begins smallint, max_jobs int, fee_discount_bps int)
LANGUAGE sql IMMUTABLE AS $$
  VALUES ('beginner', 0::smallint, 16, 0), ('intermediate', 400::smallint, 256, 0), ('advanced', 600::smallint, 512, 500),
         ('expert', 750::smallint, 1000, 1000), ('master', 900::smallint, 4000, 2000)
$$;

CREATE OR REPLACE FUNCTION reputation_score(p_user uuid) RETURNS int LANGUAGE sql STABLE AS $$
  SELECT coalesce((SELECT score FROM marketplace_reputation WHERE user_id = p_user), 500)::int
$$;

-- The level of a score: name and benefits.
CREATE OR REPLACE FUNCTION reputation_level(p_score int) RETURNS TABLE (level text, max_jobs int, fee_discount_bps int)
LANGUAGE sql IMMUTABLE AS $$
  SELECT l.level, l.max_jobs, l.fee_discount_bps FROM reputation_levels() l WHERE l.begins <= p_score ORDER BY l.begins DESC LIMIT 1
$$;

-- The platform's share that this provider pays, where others pay p_base. Rounded up.
CREATE OR REPLACE FUNCTION reputation_fee_bps(p_provider uuid, p_base bigint) RETURNS bigint LANGUAGE sql STABLE AS $$
  SELECT p_base - p_base * l.fee_discount_bps / 10000 FROM reputation_level(reputation_score(p_provider)) l
$$;

CREATE OR REPLACE FUNCTION reputation_max_jobs(p_provider uuid) RETURNS int LANGUAGE sql STABLE AS $$
  SELECT l.max_jobs FROM reputation_level(reputation_score(p_provider)) l
$$;

-- Refuses whose score is below the limit. p_what: sell | buy (only what costs p_amount units of AIT or more).
CREATE OR REPLACE FUNCTION reputation_require(p_user uuid, p_what text, p_amount numeric DEFAULT NULL) RETURNS void
LANGUAGE plpgsql STABLE AS $$
DECLARE score int := reputation_score(p_user); least_score int := parameter_value('reputation_to_' || p_what);
BEGIN
  IF score < least_score AND (p_what <> 'buy' OR p_amount >= parameter_value('reputation_buy_ait') * 1e18) THEN
    PERFORM trading_refuse(403, 'reputation.too_low', format('your reputation is %s; to %s this it must be at least %s', score, p_what, least_score));
  END IF;
END $$;

-- A part of so many samples, drawn towards 500 as if by ten others; without samples it is 500, whatever p_raw says.
CREATE OR REPLACE FUNCTION reputation_blend(p_raw numeric, p_samples numeric) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
  SELECT CASE WHEN p_samples > 0 THEN (10 * 500 + p_samples * least(1000, greatest(0, p_raw))) / (10 + p_samples) ELSE 500 END
$$;

-- The five parts and the score of these sums at p_at. p_cause, p_ref, p_facts: an event that is about to be written.
CREATE OR REPLACE FUNCTION reputation_parts(
  r marketplace_reputation, p_at timestamptz, p_cause text DEFAULT NULL, p_ref uuid DEFAULT NULL, p_facts jsonb DEFAULT NULL
) RETURNS marketplace_reputation LANGUAGE plpgsql STABLE AS $$
DECLARE n int; weights numeric; overall numeric; rated numeric; p numeric; l numeric; c numeric; s numeric; e numeric;
  deals numeric := r.ok + r.bought + r.lost;   -- not the failed ones: who fails more would look safer
BEGIN
  SELECT count(*), sum(weight), sum(weight * x.overall) / sum(weight), sum(weight * x.performance) / sum(weight)
    INTO n, weights, overall, rated FROM (
      SELECT DISTINCT ON (ref) cause, at, (facts ->> 'weight')::numeric AS weight, (facts ->> 'overall')::int AS overall,
             (facts ->> 'performance')::int AS performance
        FROM (SELECT number, cause, ref, facts, at FROM marketplace_reputation_event
               WHERE user_id = r.user_id AND cause LIKE 'review.%'
              UNION ALL SELECT 9223372036854775807, p_cause, p_ref, p_facts, p_at WHERE p_cause LIKE 'review.%') v
       ORDER BY ref, number DESC) x
   WHERE x.cause = 'review.counted' AND x.at > p_at - interval '90 days';
  p := reputation_blend(1000 * coalesce(rated, 3) / 5 * greatest(0.5, 1 - r.waited_ms / nullif(r.ok, 0) / 10000), r.ok);
  l := reputation_blend(1000.0 * r.ok / nullif(r.ok + r.failed, 0) * coalesce(r.uptime, 1), r.ok + r.failed);
  c := reputation_blend(1000 * overall / 5 * least(1.2, 1 + n / 100.0), weights);
  s := reputation_blend(800 - 500.0 * r.lost / nullif(deals, 0) + least(200, 50 * r.devices), deals);
  e := reputation_blend(500 * least(2, r.earned / nullif(r.ok, 0) / 1e17), r.ok);
  r.performance := round(p); r.reliability := round(l); r.community := round(c); r.security := round(s); r.economic := round(e);
  r.score := round(0.35 * p + 0.25 * l + 0.20 * c + 0.10 * s + 0.10 * e);
  r.computed_at := p_at;
  RETURN r;
END $$;

-- What an event changes in the sums. Reviews are read from the events themselves, for the sake of their 90 days.
CREATE OR REPLACE FUNCTION reputation_apply(r marketplace_reputation, p_cause text, p_facts jsonb) RETURNS marketplace_reputation
LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  CASE p_cause
    WHEN 'deal.completed' THEN
      r.ok := r.ok + 1; r.earned := r.earned + (p_facts ->> 'amount')::numeric; r.waited_ms := r.waited_ms + (p_facts ->> 'waited_ms')::numeric;
    WHEN 'deal.failed' THEN r.failed := r.failed + 1;
    WHEN 'deal.bought' THEN r.bought := r.bought + 1;
    WHEN 'dispute.lost' THEN
      r.lost := r.lost + 1;
      IF p_facts ->> 'role' = 'provider' THEN r.ok := r.ok - 1; r.failed := r.failed + 1; END IF;   -- it was none after all
    WHEN 'hardware.measured' THEN r.uptime := (p_facts ->> 'uptime')::numeric; r.devices := (p_facts ->> 'devices')::int;
    ELSE NULL;
  END CASE;
  RETURN r;
END $$;

-- The user's row, locked; made when it is missing.
CREATE OR REPLACE FUNCTION reputation_locked(p_user uuid) RETURNS marketplace_reputation LANGUAGE plpgsql AS $$
DECLARE r marketplace_reputation;
BEGIN
  INSERT INTO marketplace_reputation (user_id, computed_at) VALUES (p_user, clock_timestamp()) ON CONFLICT DO NOTHING;
  SELECT * INTO r FROM marketplace_reputation WHERE user_id = p_user FOR UPDATE;
  RETURN r;
END $$;

CREATE OR REPLACE FUNCTION reputation_store(r marketplace_reputation) RETURNS void LANGUAGE sql AS $$
  UPDATE marketplace_reputation SET (ok, failed, bought, lost, earned, waited_ms, uptime, devices, performance, reliability,
      community, security, economic, score, computed_at)
    = (r.ok, r.failed, r.bought, r.lost, r.earned, r.waited_ms, r.uptime, r.devices, r.performance, r.reliability,
      r.community, r.security, r.economic, r.score, r.computed_at) WHERE user_id = r.user_id
$$;

-- Write an event and the score after it. A deal or dispute that was noted already changes nothing.
CREATE OR REPLACE FUNCTION reputation_note(p_user uuid, p_cause text, p_ref uuid, p_facts jsonb) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE r marketplace_reputation := reputation_locked(p_user);
BEGIN
  IF p_cause ~ '^(deal|dispute)' AND EXISTS (
       SELECT FROM marketplace_reputation_event e WHERE e.ref = p_ref AND e.user_id = p_user AND e.cause = p_cause) THEN
    RETURN false;
  END IF;
  r := reputation_parts(reputation_apply(r, p_cause, p_facts), clock_timestamp(), p_cause, p_ref, p_facts);
  INSERT INTO marketplace_reputation_event (user_id, cause, ref, facts, score, at)
  VALUES (p_user, p_cause, p_ref, p_facts, r.score, r.computed_at);
  PERFORM reputation_store(r);
  RETURN true;
END $$;

-- What his miners are now, when it differs from what was noted last. `reliability` of a miner: null until it is measured.
CREATE OR REPLACE FUNCTION reputation_note_hardware(p_user uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE r marketplace_reputation := reputation_locked(p_user); measured numeric; passed int;
BEGIN
  SELECT round(avg(least(1, greatest(0, m.reliability::numeric))), 3) INTO measured   -- LEAST overlooks nulls, avg leaves them out
    FROM gpu_miner m WHERE m.owner_id = p_user AND m.reliability IS NOT NULL;
  SELECT count(*) INTO passed FROM gpu_device d JOIN gpu_miner m ON m.id = d.miner_id
   WHERE m.owner_id = p_user AND d.active AND d.verified;
  IF (measured, passed) IS DISTINCT FROM (r.uptime, r.devices) THEN
    PERFORM reputation_note(p_user, 'hardware.measured', NULL, jsonb_build_object('uptime', measured, 'devices', passed));
  END IF;
END $$;

-- A deal's events, for both of its parties.
CREATE OR REPLACE FUNCTION reputation_note_deal(d marketplace_deal) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE waited numeric := coalesce((SELECT greatest(0, round(extract(epoch FROM j.started_at - j.leased_at) * 1000)) FROM gpu_job j
                                     WHERE j.id = d.id AND d.what = 'job'), 0); fresh boolean;
BEGIN
  PERFORM reputation_locked(x) FROM unnest(ARRAY[d.client, d.provider]) x ORDER BY x;   -- in one order, whoever is who
  fresh := CASE WHEN d.ok THEN reputation_note(d.provider, 'deal.completed', d.id, jsonb_build_object('amount', d.amount::text, 'waited_ms', waited))
                ELSE reputation_note(d.provider, 'deal.failed', d.id, '{}') END;
  IF fresh THEN
    IF d.ok THEN PERFORM reputation_note(d.client, 'deal.bought', d.id, '{}'); END IF;
    PERFORM reputation_note_hardware(d.provider);
  END IF;
  RETURN fresh;
END $$;

-- An order is noted when its end is decided, which may be long after it: `collect` looks for what ended lately.
CREATE OR REPLACE FUNCTION reputation_note_order(p_order uuid) RETURNS bigint LANGUAGE sql
SECURITY DEFINER SET search_path = public, pg_temp AS $$
  SELECT count(reputation_note_deal(d)) FROM marketplace_deal d WHERE d.id = p_order
$$;

-- Note what ended since the last time -> how many deals and disputes were new. p_all: look at everything there is.
CREATE OR REPLACE FUNCTION reputation_collect(p_limit int, p_all boolean DEFAULT false) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE since timestamptz; d marketplace_deal; x record; n int := 0; seen timestamptz;
BEGIN
  IF NOT pg_try_advisory_xact_lock(hashtextextended('reputation.collect', 0)) THEN RETURN 0; END IF;
  SELECT upto - interval '1 minute' INTO since FROM marketplace_reputation_cursor WHERE NOT p_all;   -- what committed late
  since := coalesce(since, '-infinity');
  FOR d IN SELECT * FROM marketplace_deal v WHERE v.ended_at > since AND NOT EXISTS (
             SELECT FROM marketplace_reputation_event e WHERE e.ref = v.id AND e.user_id = v.provider AND e.cause IN ('deal.completed', 'deal.failed'))
            ORDER BY v.ended_at LIMIT p_limit LOOP
    n := n + reputation_note_deal(d)::int; seen := d.ended_at;
  END LOOP;
  IF n < p_limit THEN
    FOR x IN SELECT v, t.payment_id, t.refund * 2 >= t.total AS client_won FROM trading_dispute t
               JOIN trading_payment p ON p.id = t.payment_id JOIN marketplace_deal v ON v.id = p.job
              WHERE t.resolved_at > since AND NOT EXISTS (
                SELECT FROM marketplace_reputation_event e WHERE e.ref = t.payment_id AND e.cause IN ('dispute.lost', 'dispute.won'))
              ORDER BY t.resolved_at LIMIT p_limit - n LOOP
      PERFORM reputation_note_deal(x.v);
      PERFORM reputation_note((x.v).client, CASE WHEN x.client_won THEN 'dispute.won' ELSE 'dispute.lost' END, x.payment_id, '{"role": "client"}');
      PERFORM reputation_note((x.v).provider, CASE WHEN x.client_won THEN 'dispute.lost' ELSE 'dispute.won' END, x.payment_id, '{"role": "provider"}');
      n := n + 1;
    END LOOP;
  END IF;
  INSERT INTO marketplace_reputation_cursor (upto) VALUES (CASE WHEN n < p_limit THEN statement_timestamp() ELSE coalesce(seen, since) END)
  ON CONFLICT (id) DO UPDATE SET upto = excluded.upto;
  -- A day older: reviews leave their 90 days.
  FOR x IN SELECT r.user_id AS u FROM marketplace_reputation r WHERE r.computed_at < clock_timestamp() - interval '1 day'
            ORDER BY r.user_id LIMIT p_limit LOOP
    PERFORM reputation_note_hardware(x.u);
    PERFORM reputation_store(reputation_parts(reputation_locked(x.u), clock_timestamp()));
  END LOOP;
  RETURN n;
END $$;

-- The row as the user's events alone make it.
CREATE OR REPLACE FUNCTION reputation_fold(p_user uuid, p_at timestamptz) RETURNS marketplace_reputation LANGUAGE plpgsql STABLE AS $$
DECLARE r marketplace_reputation; e record;
BEGIN
  r.user_id := p_user; r.ok := 0; r.failed := 0; r.bought := 0; r.lost := 0; r.earned := 0; r.waited_ms := 0; r.devices := 0;
  FOR e IN SELECT cause, facts FROM marketplace_reputation_event WHERE user_id = p_user ORDER BY number LOOP
    r := reputation_apply(r, e.cause, e.facts);
  END LOOP;
  RETURN reputation_parts(r, p_at);
END $$;

-- Where a score is not what its events make, or an event not what its deal says.
CREATE OR REPLACE FUNCTION reputation_verify() RETURNS TABLE (who uuid, problem text) LANGUAGE sql STABLE AS $$
  SELECT r.user_id, 'its events make another score' FROM marketplace_reputation r
   WHERE reputation_fold(r.user_id, r.computed_at) IS DISTINCT FROM r
  UNION ALL
  SELECT d.provider, 'deal ' || d.id || ' was never noted' FROM marketplace_deal d
   WHERE d.ended_at < (SELECT upto - interval '1 minute' FROM marketplace_reputation_cursor) AND NOT EXISTS (
     SELECT FROM marketplace_reputation_event e WHERE e.ref = d.id AND e.user_id = d.provider AND e.cause IN ('deal.completed', 'deal.failed'))
  UNION ALL
  SELECT e.user_id, 'there is no such deal: ' || e.ref FROM marketplace_reputation_event e WHERE e.cause LIKE 'deal.%' AND NOT EXISTS (
     SELECT FROM marketplace_deal d WHERE d.id = e.ref AND e.user_id = CASE e.cause WHEN 'deal.bought' THEN d.client ELSE d.provider END
        AND d.ok = (e.cause <> 'deal.failed'))
  UNION ALL
  SELECT v.subject_id, 'review ' || v.id || ' counts otherwise' FROM marketplace_review v LEFT JOIN LATERAL (
     SELECT e.cause, e.facts FROM marketplace_reputation_event e WHERE e.user_id = v.subject_id AND e.ref = v.id AND e.cause LIKE 'review.%'
      ORDER BY e.number DESC LIMIT 1) l ON true
   WHERE (v.state = 'approved') <> coalesce(l.cause = 'review.counted', false)
      OR (v.state = 'approved' AND l.facts <> review_facts(v))
$$;

-- Put every score right from the events -> how many were wrong.
CREATE OR REPLACE FUNCTION reputation_rebuild() RETURNS int LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE u uuid; r marketplace_reputation; n int := 0;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('reputation.collect', 0));   -- which locks users in another order
  FOR u IN SELECT user_id FROM marketplace_reputation ORDER BY user_id LOOP
    r := reputation_locked(u);
    IF reputation_fold(u, r.computed_at) IS DISTINCT FROM r THEN
      PERFORM reputation_store(reputation_fold(u, clock_timestamp()));
      n := n + 1;
    END IF;
  END LOOP;
  RETURN n;
END $$;

CREATE OR REPLACE FUNCTION reputation_document(p_user uuid) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE r marketplace_reputation; score int := reputation_score(p_user);
BEGIN
  IF NOT EXISTS (SELECT FROM accounts_user WHERE id = p_user) THEN
    PERFORM trading_refuse(404, 'reputation.unknown', 'there is no such user');
  END IF;
  SELECT * INTO r FROM marketplace_reputation WHERE user_id = p_user;
  RETURN json_build_object(
    'user', p_user, 'score', score, 'level', (SELECT l.level FROM reputation_level(score) l),
    'benefits', (SELECT json_build_object('max_jobs', l.max_jobs, 'fee_discount_bps', l.fee_discount_bps) FROM reputation_level(score) l),
    'parts', json_build_object('performance', coalesce(r.performance, 500), 'reliability', coalesce(r.reliability, 500),
       'community', coalesce(r.community, 500), 'security', coalesce(r.security, 500), 'economic', coalesce(r.economic, 500)),
    'deals', json_build_object('completed', coalesce(r.ok, 0), 'failed', coalesce(r.failed, 0), 'bought', coalesce(r.bought, 0),
       'disputes_lost', coalesce(r.lost, 0)),
    'reviews', (SELECT json_build_object('count', count(*), 'average', round(avg(v.overall), 2))
       FROM marketplace_review v WHERE v.subject_id = p_user AND v.state = 'approved'),
    'computed_at', r.computed_at)::text;
END $$;

-- A page of the best; only these columns are for everybody's eyes.
CREATE OR REPLACE FUNCTION reputation_leaderboard(p_by text, p_cursor text, p_limit int) RETURNS text LANGUAGE sql STABLE AS $$
  WITH ranked AS (
    SELECT r.*, CASE p_by WHEN 'score' THEN r.score WHEN 'performance' THEN r.performance WHEN 'reliability' THEN r.reliability
             WHEN 'community' THEN r.community WHEN 'security' THEN r.security WHEN 'economic' THEN r.economic END AS ranks
      FROM marketplace_reputation r),
  found AS (
    SELECT *, row_number() OVER (ORDER BY ranks DESC, user_id) AS nth FROM ranked
     WHERE p_cursor IS NULL OR (-ranks, user_id) > (-split_part(p_cursor, ':', 1)::int, split_part(p_cursor, ':', 2)::uuid)
     ORDER BY ranks DESC, user_id LIMIT p_limit + 1)
  SELECT json_build_object(
    'items', coalesce((SELECT json_agg(json_build_object('user', user_id, 'score', score,
        'level', (SELECT l.level FROM reputation_level(f.score) l), 'completed', ok, p_by, ranks) ORDER BY nth) FROM found f WHERE nth <= p_limit), '[]'),
    'next', (SELECT ranks || ':' || user_id FROM found WHERE nth = p_limit AND EXISTS (SELECT FROM found WHERE nth > p_limit)))::text
$$;

-- A page of what moved a score, newest first. What a deal cost stays between its parties.
CREATE OR REPLACE FUNCTION reputation_history(p_user uuid, p_before bigint, p_limit int) RETURNS text LANGUAGE sql STABLE AS $$
  WITH found AS (
    SELECT e.*, row_number() OVER (ORDER BY number DESC) AS nth FROM marketplace_reputation_event e
     WHERE e.user_id = p_user AND (p_before IS NULL OR e.number < p_before) ORDER BY number DESC LIMIT p_limit + 1)
  SELECT json_build_object(
    'items', coalesce((SELECT json_agg(json_build_object('number', number, 'cause', cause, 'score', score, 'at', at) ORDER BY nth)
       FROM found WHERE nth <= p_limit), '[]'),
    'next', (SELECT number FROM found WHERE nth = p_limit AND EXISTS (SELECT FROM found WHERE nth > p_limit)))::text
$$;
