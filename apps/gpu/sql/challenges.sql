-- Does the device, or its miner, serve anybody now?
CREATE OR REPLACE FUNCTION gpu_device_works(p_device uuid) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT EXISTS (SELECT 1 FROM gpu_occupancy o WHERE o.device_id = p_device AND o.during @> clock_timestamp())
      OR EXISTS (SELECT 1 FROM gpu_device d JOIN gpu_job j ON j.miner_id = d.miner_id AND j.state IN ('leased', 'running')
                  WHERE d.id = p_device)
$$;

-- Devices to be challenged together, and once in how many hours: those of an owner, of a signing key, of a region.
-- What is not verified and was not asked within the hour is due now.
CREATE OR REPLACE FUNCTION gpu_challenge_groups() RETURNS TABLE (hours int, devices uuid[]) LANGUAGE sql VOLATILE AS $$
  WITH present AS (
    SELECT d.id, d.verified, m.owner_id, m.address, m.region,
           EXISTS (SELECT 1 FROM gpu_challenge c WHERE c.device_id = d.id AND c.issued_at > clock_timestamp() - interval '1 hour') AS asked
      FROM gpu_device d JOIN gpu_miner m ON m.id = d.miner_id WHERE d.active AND m.state IN ('online', 'suspect', 'draining'))
  SELECT parameter_value('challenge_owner_hours')::int, array_agg(id ORDER BY id) FROM present GROUP BY owner_id
  UNION ALL
  SELECT parameter_value('challenge_owner_hours')::int, array_agg(id ORDER BY id) FROM present GROUP BY address HAVING count(DISTINCT owner_id) > 1
  UNION ALL
  SELECT parameter_value('challenge_region_hours')::int, array_agg(id ORDER BY id) FROM present GROUP BY region
  UNION ALL
  SELECT 0, array_agg(id ORDER BY id) FROM present WHERE NOT verified AND NOT asked HAVING count(*) > 0
$$;

-- All that a miner has to answer. The clock of each starts when he hears of it, and at most 15 s after it was drawn: else
-- who holds his beats back would answer one after the other.
CREATE OR REPLACE FUNCTION gpu_open_challenges(p_miner uuid) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  UPDATE gpu_challenge c SET shown = true, issued_at = c.issued_at + w, deadline = c.deadline + w
    FROM (SELECT id, least(clock_timestamp() - issued_at, interval '15 seconds') AS w FROM gpu_challenge
           WHERE miner_id = p_miner AND state = 'issued' AND NOT shown) x WHERE x.id = c.id;
  RETURN (SELECT coalesce(json_agg(json_build_object(
      'id', c.id, 'device_id', c.device_id, 'device', d.uuid, 'proof', c.proof, 'deadline', c.deadline,
      'spec', json_build_object('seed', substr(c.seed, 3), 'n', c.n, 'rounds', c.rounds, 'steps', c.steps)) ORDER BY c.id), '[]')::text
    FROM gpu_challenge c JOIN gpu_device d ON d.id = c.device_id WHERE c.miner_id = p_miner AND c.state = 'issued');
END $$;

-- Challenges that nobody answered: the device failed, unless the platform itself was away.
CREATE OR REPLACE FUNCTION gpu_end_overdue_challenges() RETURNS void LANGUAGE plpgsql AS $$
DECLARE c record; late text := 'not answered by the deadline';
BEGIN
  FOR c IN SELECT id, miner_id, device_id, core_outage_seconds(issued_at, deadline) AS away FROM gpu_challenge
            WHERE state IN ('issued', 'committed', 'walked') AND deadline <= clock_timestamp()
            ORDER BY device_id FOR UPDATE SKIP LOCKED LOOP
    IF c.away > 0 THEN
      DELETE FROM gpu_challenge WHERE id = c.id;
    ELSE
      UPDATE gpu_challenge SET state = 'failed', reason = late WHERE id = c.id;
      UPDATE gpu_device SET verified = false, tflops = NULL, memory_gbps = NULL, refuted = late WHERE id = c.device_id;
      PERFORM trading_announce('gpu.device_measured', 'miner:' || c.miner_id,
                               jsonb_build_object('miner', c.miner_id, 'device', c.device_id));
    END IF;
  END LOOP;
END $$;
