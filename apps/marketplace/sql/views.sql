-- The JSON document of an offer in the /v1 contract. What nobody measured yet is null, never a number.

-- One row. A set, and the function after it without a query, become part of the query that calls them: a page of offers is
-- planned once, and not once more for each offer.
CREATE OR REPLACE FUNCTION marketplace_offer_devices(p_offer uuid) RETURNS SETOF json LANGUAGE sql STABLE AS $$
  SELECT coalesce(json_agg(json_build_object(
           'id', d.id, 'kind', d.kind, 'model', d.model, 'memory_mb', d.memory_mb, 'cuda', d.cuda,
           'verified', d.verified, 'tflops', d.tflops, 'memory_gbps', d.memory_gbps) ORDER BY d.id), '[]')
    FROM marketplace_offer_device x JOIN gpu_device d ON d.id = x.device_id WHERE x.offer_id = p_offer
$$;

CREATE OR REPLACE FUNCTION marketplace_offer_json(o marketplace_offer, p_devices json) RETURNS json
LANGUAGE sql STABLE AS $$
  SELECT json_build_object(
    'id', o.id, 'miner_id', o.miner_id,
    'devices', p_devices,
    'model', o.model, 'device_count', o.device_count, 'memory_gb', trim_scale(round(o.memory_mb / 1024.0, 3)),
    'price', json_build_object(
      'on_demand', ait_money(o.price, o.asset),
      'spot', CASE WHEN o.spot_price IS NOT NULL THEN ait_money(o.spot_price, o.asset) END,
      'reserved', CASE WHEN o.reserved_discount_bps IS NOT NULL THEN ait_money(
        div(o.price * (10000 - o.reserved_discount_bps) + 9999, 10000), o.asset) END),
    'sla', CASE WHEN o.sla_bps IS NOT NULL THEN json_build_object('availability', o.sla_bps / 10000.0, 'only', o.sla_only) END,
    'reserved_discount_bps', o.reserved_discount_bps, 'min_seconds', o.min_seconds, 'max_seconds', o.max_seconds,
    'region', o.region, 'kinds', o.kinds,
    'reliability', CASE WHEN o.reliability IS NOT NULL THEN json_build_object('score', o.reliability,
      'low', o.reliability_low, 'high', o.reliability_high, 'samples', o.reliability_samples) END,
    'dl_score', o.dl_score, 'score', round(o.score::numeric, 3), 'verified', o.verified,
    'state', o.state, 'reason', nullif(o.reason, ''), 'available_from', o.available_from, 'expires_at', o.expires_at,
    'created_at', o.created_at)
$$;

CREATE OR REPLACE FUNCTION marketplace_offer_document(o marketplace_offer) RETURNS json LANGUAGE sql STABLE AS $$
  SELECT marketplace_offer_json(o, d) FROM marketplace_offer_devices(o.id) d
$$;
