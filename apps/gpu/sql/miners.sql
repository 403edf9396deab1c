-- What a miner reads about itself.

CREATE OR REPLACE FUNCTION gpu_registered(p_key uuid) RETURNS gpu_miner LANGUAGE plpgsql STABLE AS $$
DECLARE m gpu_miner;
BEGIN
  SELECT * INTO m FROM gpu_miner WHERE key_id = p_key;
  IF NOT FOUND THEN PERFORM trading_refuse(404, 'miner.unregistered', 'this key has not registered a miner'); END IF;
  RETURN m;
END $$;

-- Jobs that it holds or held, newest first.
CREATE OR REPLACE FUNCTION gpu_jobs_of_miner(p_key uuid, p_state text, p_before uuid, p_limit int) RETURNS text LANGUAGE sql STABLE AS $$
  WITH me AS MATERIALIZED (SELECT (gpu_registered(p_key)).id),
  found AS (
    SELECT j.id, gpu_job_document(j, p) AS document, row_number() OVER (ORDER BY j.id DESC) AS nth
      FROM (SELECT * FROM gpu_job x WHERE x.miner_id = (SELECT id FROM me) AND (p_state IS NULL OR x.state = p_state)
               AND (p_before IS NULL OR x.id < p_before) ORDER BY x.id DESC LIMIT p_limit + 1) j
      LEFT JOIN trading_payment p ON p.job = j.id)
  SELECT json_build_object(
    'items', coalesce((SELECT json_agg(document ORDER BY nth) FROM found WHERE nth <= p_limit), '[]'),
    'next', (SELECT id FROM found WHERE nth = p_limit AND EXISTS (SELECT FROM found WHERE nth > p_limit)))::text
$$;

-- Released and still maturing amounts of the jobs that it finished in the period.
CREATE OR REPLACE FUNCTION gpu_earnings(p_key uuid, p_from timestamptz, p_to timestamptz) RETURNS text LANGUAGE sql STABLE AS $$
  WITH me AS MATERIALIZED (SELECT (gpu_registered(p_key)).id)
  SELECT json_build_object(
    'released', ait_money(coalesce(sum(p.released) FILTER (WHERE p.matured_at IS NOT NULL), 0)),
    'maturing', ait_money(coalesce(sum(p.released) FILTER (WHERE p.matured_at IS NULL), 0)),
    'fees', ait_money(coalesce(sum(p.fee), 0)), 'jobs', count(p.id))::text
    FROM me JOIN gpu_job j ON j.miner_id = me.id AND (p_from IS NULL OR j.finished_at >= p_from) AND (p_to IS NULL OR j.finished_at < p_to)
    JOIN trading_payment p ON p.job = j.id AND p.released > 0
$$;
