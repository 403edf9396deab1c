-- What time does to miners and jobs, always by the database's clock; each function is one transaction and may run twice.

-- How many miners fell silent within one minute, and of how many. For the minute after they became overdue only: whoever
-- stays silent longer is dead, else a power cut at one large owner would keep his jobs leased for ever.
CREATE OR REPLACE FUNCTION gpu_silence() RETURNS TABLE (living bigint, silent bigint) LANGUAGE sql STABLE AS $$
  WITH limits AS (SELECT clock_timestamp() - parameter_value('dead_seconds') * interval '1 second' AS dead)
  SELECT count(*), count(*) FILTER (WHERE m.last_seen_at < limits.dead) FROM gpu_miner m, limits
   WHERE m.state IN ('online', 'suspect', 'draining', 'dead') AND m.last_seen_at > limits.dead - interval '1 minute'
$$;

CREATE OR REPLACE FUNCTION gpu_suspect() RETURNS int LANGUAGE sql AS $$
  WITH silent AS (
    UPDATE gpu_miner SET state = 'suspect' WHERE state = 'online'
       AND last_seen_at < clock_timestamp() - parameter_value('suspect_seconds') * interval '1 second' RETURNING 1)
  SELECT count(*)::int FROM silent
$$;

CREATE OR REPLACE FUNCTION gpu_dying(p_limit int) RETURNS SETOF uuid LANGUAGE sql STABLE AS $$
  SELECT id FROM gpu_miner WHERE state IN ('online', 'suspect', 'draining')
     AND last_seen_at < clock_timestamp() - parameter_value('dead_seconds') * interval '1 second' ORDER BY id LIMIT p_limit
$$;

-- Take a miner out: its leases go back -> how many. Signing off and registering again must not end a suspension.
CREATE OR REPLACE FUNCTION gpu_leave(p_miner uuid, p_state text, p_code text, p_message text) RETURNS int LANGUAGE plpgsql AS $$
DECLARE returned int;
BEGIN
  UPDATE gpu_miner SET state = p_state WHERE id = p_miner AND state <> 'suspended';
  IF p_state = 'offline' THEN
    UPDATE gpu_device SET active = false WHERE miner_id = p_miner;
    -- Who comes back gets one of its own: the clock of the old one has run on meanwhile.
    UPDATE gpu_device SET verified = false WHERE id IN (   -- nobody leaves to be believed
      SELECT device_id FROM gpu_challenge WHERE miner_id = p_miner AND state IN ('issued', 'committed', 'walked'));
    UPDATE gpu_challenge SET state = 'failed', reason = 'the miner signed off'
     WHERE miner_id = p_miner AND state IN ('issued', 'committed', 'walked');
  END IF;
  SELECT gpu_end_attempt(coalesce(array_agg(id), '{}'), p_code, p_message, 'provider', true) INTO returned
    FROM gpu_job WHERE miner_id = p_miner AND state IN ('leased', 'running');
  PERFORM trading_announce('gpu.miner_left', 'miner:' || p_miner, jsonb_build_object('miner', p_miner, 'state', p_state));
  RETURN returned;
END $$;

-- One miner that stopped answering, unless it spoke again or another sweep was faster.
CREATE OR REPLACE FUNCTION gpu_bury(p_miner uuid) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  PERFORM 1 FROM gpu_miner WHERE id = p_miner AND state IN ('online', 'suspect', 'draining')
     AND last_seen_at < clock_timestamp() - parameter_value('dead_seconds') * interval '1 second' FOR NO KEY UPDATE SKIP LOCKED;
  IF NOT FOUND THEN RETURN false; END IF;
  PERFORM gpu_leave(p_miner, 'dead', 'miner.dead', 'the miner stopped answering');
  RETURN true;
END $$;

CREATE OR REPLACE FUNCTION gpu_end_expired(p_limit int) RETURNS int LANGUAGE sql AS $$
  SELECT gpu_end_attempt(coalesce(array_agg(x.id), '{}'), 'lease.expired', 'the miner stopped renewing the lease', 'provider', true)
    FROM (SELECT id FROM gpu_job WHERE state IN ('leased', 'running') AND lease_expires_at <= clock_timestamp()
           ORDER BY id LIMIT p_limit FOR NO KEY UPDATE SKIP LOCKED) x
$$;

-- Without artifacts the clock runs from the lease on, and no start need be reported.
CREATE OR REPLACE FUNCTION gpu_end_unstarted(p_limit int) RETURNS int LANGUAGE sql AS $$
  SELECT gpu_end_attempt(coalesce(array_agg(x.id), '{}'), 'lease.not_started', 'the miner did not start in time', 'provider', true)
    FROM (SELECT id FROM gpu_job WHERE state = 'leased' AND leased_at <= clock_timestamp() - CASE WHEN cardinality(artifacts) > 0
                   THEN parameter_value('start_deadline_seconds') * interval '1 second' ELSE (max_ms + 5000) * interval '1 ms' END
           ORDER BY id LIMIT p_limit FOR NO KEY UPDATE SKIP LOCKED) x
$$;

CREATE OR REPLACE FUNCTION gpu_end_overtime(p_limit int) RETURNS int LANGUAGE sql AS $$
  SELECT gpu_end_attempt(coalesce(array_agg(x.id), '{}'), 'runtime.timeout', 'the job ran longer than its escrow pays for', 'client', true)
    FROM (SELECT id FROM gpu_job WHERE state = 'running' AND started_at + (max_ms + 5000) * interval '1 ms' <= clock_timestamp()
           ORDER BY id LIMIT p_limit FOR NO KEY UPDATE SKIP LOCKED) x
$$;

-- Return what is still held for a job that is over: the state machine alone resolves holds.
CREATE OR REPLACE FUNCTION gpu_settle_final(p_limit int) RETURNS int LANGUAGE sql AS $$
  SELECT coalesce(payments_settle(array_agg(x.job), array_agg(NULL::uuid), array_agg(0::numeric), array_agg(0::numeric), array_agg(x.state = 'expired')), 0)
    FROM (SELECT p.job, j.state FROM trading_payment p JOIN gpu_job j ON j.id = p.job
           WHERE p.state = 'escrowed' AND j.state IN ('failed', 'canceled', 'expired') LIMIT p_limit) x
$$;
