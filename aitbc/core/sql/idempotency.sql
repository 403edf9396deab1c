-- Verdict on an Idempotency-Key, under a lock of the transaction: new | replay | mismatch | in_flight.
CREATE OR REPLACE FUNCTION core_idempotency_begin(p_principal uuid, p_route text, p_key text, p_digest bytea)
RETURNS TABLE (state text, status int, body text) LANGUAGE plpgsql AS $$
DECLARE stored core_idempotency;
BEGIN
  IF NOT pg_try_advisory_xact_lock(hashtextextended(p_principal::text || ' ' || p_route || ' ' || p_key, 27)) THEN
    RETURN QUERY SELECT 'in_flight', NULL::int, NULL::text;
    RETURN;
  END IF;
  SELECT * INTO stored FROM core_idempotency i
   WHERE i.principal = p_principal AND i.route = p_route AND i.key = p_key;
  IF NOT FOUND THEN
    RETURN QUERY SELECT 'new', NULL::int, NULL::text;
  ELSIF stored.digest <> p_digest THEN
    RETURN QUERY SELECT 'mismatch', NULL::int, NULL::text;
  ELSE
    RETURN QUERY SELECT 'replay', stored.status::int, stored.body;
  END IF;
END $$;

CREATE OR REPLACE FUNCTION core_idempotency_store(
  p_principal uuid, p_route text, p_key text, p_digest bytea, p_status int, p_body text
) RETURNS void LANGUAGE sql AS $$
  INSERT INTO core_idempotency (principal, route, key, digest, status, body)
  VALUES (p_principal, p_route, p_key, p_digest, p_status, p_body)
$$;
