-- JSON documents of the /v1 contract, built where the rows are.

CREATE OR REPLACE FUNCTION ait_money(p_units numeric, p_asset text DEFAULT 'AIT') RETURNS json
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN p_units IS NULL THEN NULL ELSE
    json_build_object('amount', trim_scale(p_units / 1000000000000000000.000000000000000000)::text, 'asset', p_asset) END
$$;

CREATE OR REPLACE FUNCTION gpu_job_document(j gpu_job, p trading_payment) RETURNS json
LANGUAGE sql STABLE AS $$
  SELECT json_build_object(
    'id', j.id, 'kind', j.kind, 'state', j.state, 'priority', j.priority, 'created_at', j.created_at,
    'leased_at', j.leased_at, 'started_at', j.started_at, 'finished_at', j.finished_at,
    'expires_at', j.expires_at, 'attempts', j.attempts, 'miner_id', j.miner_id, 'offer_id', j.offer_id,
    'order_id', j.order_id,
    'progress', j.progress,
    'error', CASE WHEN j.error_code IS NULL THEN NULL
             ELSE json_build_object('code', j.error_code, 'message', j.error_message) END,
    'payment', CASE WHEN p.id IS NOT NULL THEN json_build_object(
      'id', p.id, 'state', p.state, 'held', ait_money(p.held, p.asset), 'released', ait_money(p.released, p.asset),
      'refunded', ait_money(p.refunded, p.asset), 'fee', ait_money(p.fee, p.asset)) END)
$$;

-- What the leased miner gets to know.
CREATE OR REPLACE FUNCTION gpu_lease_document(j gpu_job) RETURNS json LANGUAGE sql STABLE AS $$
  SELECT json_build_object(
    'id', j.id, 'kind', j.kind, 'input', j.input, 'input_artifact', encode(j.input_artifact, 'hex'),
    'client', '0x' || encode(sha256(uuid_send(j.client_id)), 'hex'), 'miner', j.miner_id, 'attempt', j.attempts, 'salt', '0x' || encode(j.salt, 'hex'),
    'unit_price', ait_money(j.unit_price), 'lease_token', j.lease_token, 'lease_expires_at', j.lease_expires_at,
    'max_seconds', j.max_ms / 1000.0, 'max_units', j.max_ms)
$$;
