-- The JSON document of an offer in the /v1 contract. What nobody measured yet is null, never a number.

CREATE OR REPLACE FUNCTION marketplace_offer_document(o marketplace_offer) RETURNS json
LANGUAGE sql STABLE AS $$
  SELECT json_build_object(
    'id', o.id, 'miner_id', o.miner_id,
    'devices', (
      SELECT coalesce(json_agg(json_build_object(
               'id', d.id, 'kind', d.kind, 'model', d.model, 'memory_mb', d.memory_mb, 'cuda', d.cuda,
               'verified', d.verified, 'tflops', d.tflops, 'memory_gbps', d.memory_gbps) ORDER BY d.id), '[]')
        FROM marketplace_offer_device x JOIN gpu_device d ON d.id = x.device_id WHERE x.offer_id = o.id),
    'model', o.model, 'device_count', o.device_count, 'memory_gb', trim_scale(round(o.memory_mb / 1024.0, 3)),
    'price', json_build_object('on_demand', ait_money(o.price, o.asset), 'spot', ait_money(o.spot_price, o.asset)),
    'sla', CASE WHEN o.sla_bps IS NOT NULL THEN json_build_object('availability', o.sla_bps / 10000.0, 'only', o.sla_only) END,
    'region', o.region, 'kinds', o.kinds, 'reliability', NULL, 'dl_score', NULL, 'verified', o.verified,
    'state', o.state, 'reason', nullif(o.reason, ''), 'available_from', o.available_from, 'created_at', o.created_at)
$$;
