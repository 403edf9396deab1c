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
