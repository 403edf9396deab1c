-- Events become deliveries, deliveries become attempts. All times are the database's.

-- Write an event for its owners into the outbox, if one of them listens; in the caller's transaction, under
-- the aggregate's row lock. `p_data` is what receivers get: public, and small.
CREATE OR REPLACE FUNCTION webhooks_tell(p_event text, p_aggregate text, p_owners uuid[], p_data jsonb)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT 1 FROM webhooks_endpoint WHERE owner_id = ANY (p_owners) AND enabled) THEN
    INSERT INTO core_outbox (event_id, event, aggregate, payload, attempts, dead, last_error, next_attempt_at, created_at)
    VALUES (uuidv7(), p_event, p_aggregate, jsonb_build_object('owners', p_owners, 'data', p_data),
            0, false, '', clock_timestamp(), clock_timestamp());
  END IF;
END $$;

-- One delivery per event and endpoint that wants it; a repeat adds none. `p_rows`: outbox rows, still there.
CREATE OR REPLACE FUNCTION webhooks_fan_out(p_rows bigint[]) RETURNS int LANGUAGE plpgsql AS $$
DECLARE added int;
BEGIN
  WITH told AS (
    SELECT o.id, o.event_id, o.event, o.created_at, o.payload, (jsonb_array_elements_text(o.payload->'owners'))::uuid AS owner
      FROM core_outbox o WHERE o.id = ANY (p_rows)),
  listening AS (
    SELECT e.* FROM webhooks_endpoint e WHERE e.enabled AND e.owner_id IN (SELECT owner FROM told)
     ORDER BY e.id FOR KEY SHARE)
  INSERT INTO webhooks_delivery (endpoint_id, event_id, event, body, state, attempts, due_at, created_at, error)
  SELECT e.id, t.event_id, t.event, json_build_object('type', t.event, 'timestamp', t.created_at, 'sequence', t.id, 'data', t.payload->'data'),
         'pending', 0, clock_timestamp(), t.created_at, ''
    FROM told t JOIN listening e ON e.owner_id = t.owner AND (e.events = '{}' OR t.event = ANY (e.events))
   ORDER BY t.id ON CONFLICT (endpoint_id, event_id) DO NOTHING;
  GET DIAGNOSTICS added = ROW_COUNT;
  RETURN added;
END $$;

-- The due events of a partition that only webhooks hear of, at once: deliveries written, rows gone. The caller
-- holds the partition. None passes an earlier event of its aggregate. Whatever goes wrong leaves all of them
-- where they are, for the relay to deliver one by one and to halt at the one that fails.
CREATE OR REPLACE FUNCTION webhooks_take(p_partition bigint, p_limit int, p_events text[]) RETURNS int LANGUAGE plpgsql AS $$
DECLARE due bigint[];
BEGIN
  SELECT array_agg(id) INTO due FROM (
    SELECT o.id FROM core_outbox o
     WHERE o.partition = p_partition AND NOT o.dead AND o.next_attempt_at <= clock_timestamp() AND o.event = ANY (p_events)
       AND NOT EXISTS (SELECT 1 FROM core_outbox e WHERE e.partition = o.partition AND e.aggregate = o.aggregate AND e.id < o.id
                         AND (e.dead OR e.next_attempt_at > clock_timestamp() OR e.event <> ALL (p_events)))
     ORDER BY o.id LIMIT p_limit) x;
  IF due IS NULL THEN RETURN 0; END IF;
  PERFORM webhooks_fan_out(due);
  DELETE FROM core_outbox WHERE id = ANY (due);
  RETURN array_length(due, 1);
EXCEPTION WHEN OTHERS THEN RETURN 0;
END $$;

-- What attempts came to. `p_attempts`: how many a row had when it was claimed; a row that another sender has
-- reported since is left alone. `p_headers`: the answers' Retry-After. Waits follow the schedule of the specification, a fifth longer at most, so
-- that what failed together does not come back together; an answer's Retry-After may only make them longer.
CREATE OR REPLACE FUNCTION webhooks_report(
  p_ids bigint[], p_attempts int[], p_statuses int[], p_errors text[], p_headers text[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  waits CONSTANT int[] := ARRAY[5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400];   -- seconds after attempt 1, 2, ...
BEGIN
  -- Endpoints before deliveries, as whoever removes one takes them.
  PERFORM 1 FROM webhooks_endpoint e
   WHERE e.id IN (SELECT endpoint_id FROM webhooks_delivery WHERE id = ANY (p_ids)) ORDER BY e.id FOR NO KEY UPDATE;
  WITH done AS (
    UPDATE webhooks_delivery d SET
      attempts = d.attempts + 1, attempted_at = clock_timestamp(), status = x.status, error = x.error,
      state = CASE WHEN x.status BETWEEN 200 AND 299 THEN 'delivered' WHEN waits[d.attempts + 1] IS NULL THEN 'dead' ELSE 'pending' END,
      due_at = clock_timestamp() + make_interval(secs => greatest(
        coalesce(waits[d.attempts + 1], 0) * (1 + random() / 5), x.retry_after, 0))
      FROM (SELECT *, CASE WHEN u.status >= 400 THEN webhooks_pause(u.header) END AS retry_after
              FROM unnest(p_ids, p_attempts, p_statuses, p_errors, p_headers) AS u(id, attempts, status, error, header)) x
     WHERE d.id = x.id AND d.state = 'pending' AND d.attempts = x.attempts
    RETURNING d.endpoint_id, d.status, x.retry_after),
  verdict AS (
    SELECT endpoint_id, bool_or(status BETWEEN 200 AND 299) AS works, bool_or(status = 410) AS gone,
           max(CASE WHEN status IN (429, 502, 504) OR retry_after > 0 THEN coalesce(nullif(retry_after, 0), 30) END) AS pause
      FROM done GROUP BY endpoint_id),
  changed AS (
    SELECT e.id, v.* FROM webhooks_endpoint e JOIN verdict v ON v.endpoint_id = e.id
     WHERE v.gone IS TRUE OR v.pause IS NOT NULL OR (v.works IS TRUE) = (e.failing_since IS NOT NULL))
  UPDATE webhooks_endpoint e SET
    enabled = e.enabled AND c.gone IS NOT TRUE,
    disabled_reason = CASE WHEN c.gone THEN 'The receiver answered 410 Gone.' ELSE e.disabled_reason END,
    paused_until = CASE WHEN c.pause IS NULL THEN e.paused_until ELSE clock_timestamp() + make_interval(secs => c.pause) END,
    failing_since = CASE WHEN c.works IS TRUE THEN NULL ELSE coalesce(e.failing_since, clock_timestamp()) END
    FROM changed c WHERE e.id = c.id;
  -- Deliveries are kept for 30 days: who adds some takes as many of the endpoint's oldest away.
  DELETE FROM webhooks_delivery d USING (
    SELECT o.id FROM (SELECT endpoint_id, count(*) AS n FROM webhooks_delivery WHERE id = ANY (p_ids) GROUP BY endpoint_id) r
     CROSS JOIN LATERAL (SELECT * FROM webhooks_delivery x WHERE x.endpoint_id = r.endpoint_id ORDER BY x.event_id LIMIT 2 * r.n) o
     WHERE o.state <> 'pending' AND o.created_at < clock_timestamp() - interval '30 days') old
   WHERE d.id = old.id;
END $$;

-- Claim what is due, at most `p_at_one` per endpoint less what is under way to it (`p_busy`, `p_counts`), and
-- one at a time to an endpoint that fails. A claim lasts a minute: what a killed sender held is due again then.
-- The recursion steps from endpoint to endpoint along the index, past however many rows each of them has.
CREATE OR REPLACE FUNCTION webhooks_claim(p_most int, p_at_one int, p_busy uuid[], p_counts int[])
RETURNS TABLE (id bigint, endpoint uuid, url text, nonces bytea[], event_id uuid, body text, attempts int, now bigint)
LANGUAGE sql SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
  WITH RECURSIVE waiting(e) AS (
    (SELECT endpoint_id FROM webhooks_delivery WHERE state = 'pending' ORDER BY endpoint_id LIMIT 1)
    UNION ALL
    SELECT (SELECT d.endpoint_id FROM webhooks_delivery d WHERE d.state = 'pending' AND d.endpoint_id > w.e ORDER BY d.endpoint_id LIMIT 1)
      FROM waiting w WHERE w.e IS NOT NULL),
  free AS (
    SELECT e.id, greatest(0, CASE WHEN e.failing_since IS NULL THEN p_at_one ELSE 1 END - coalesce(b.n, 0)) AS n, coalesce(b.n, 0) AS busy
      FROM waiting w JOIN webhooks_endpoint e ON e.id = w.e
      LEFT JOIN unnest(p_busy, p_counts) b(id, n) ON b.id = e.id
     WHERE e.enabled AND (e.paused_until IS NULL OR e.paused_until <= statement_timestamp())),
  due AS (
    SELECT x.id FROM (SELECT * FROM free ORDER BY busy, random()) f CROSS JOIN LATERAL (
      SELECT d.id FROM webhooks_delivery d WHERE d.endpoint_id = f.id AND d.state = 'pending' AND d.due_at <= statement_timestamp()
       ORDER BY d.due_at LIMIT f.n FOR UPDATE SKIP LOCKED) x LIMIT p_most)
  UPDATE webhooks_delivery d SET due_at = statement_timestamp() + interval '1 minute'
    FROM due, webhooks_endpoint e WHERE d.id = due.id AND e.id = d.endpoint_id
  RETURNING d.id, d.endpoint_id, e.url,
    CASE WHEN e.previous_until > statement_timestamp() THEN ARRAY[e.nonce, e.previous_nonce] ELSE ARRAY[e.nonce] END,
    d.event_id, d.body, d.attempts::int, extract(epoch FROM statement_timestamp())::bigint
$$;

-- How long an answer's Retry-After asks to wait, in seconds up to a day; NULL where it says nothing of the kind.
CREATE OR REPLACE FUNCTION webhooks_pause(p_header text) RETURNS int LANGUAGE plpgsql STABLE AS $$
BEGIN
  IF p_header ~ '^[0-9]+$' THEN RETURN least(left(p_header, 9)::int, 86400); END IF;
  IF p_header !~ '^[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} GMT$' THEN RETURN NULL; END IF;
  RETURN greatest(0, least(86400, extract(epoch FROM
    to_timestamp(substr(p_header, 6, 20), 'DD Mon YYYY HH24:MI:SS') - statement_timestamp())));
EXCEPTION WHEN datetime_field_overflow OR invalid_datetime_format THEN RETURN NULL;
END $$;

-- What the API says. Each function takes the caller and answers NULL for what he does not have.

CREATE OR REPLACE FUNCTION webhooks_document(e webhooks_endpoint) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_object(
    'id', e.id, 'url', e.url, 'events', e.events, 'enabled', e.enabled, 'disabled_reason', e.disabled_reason,
    'failing_since', e.failing_since, 'paused_until', e.paused_until, 'previous_until', e.previous_until,
    'created_at', e.created_at)
$$;

CREATE OR REPLACE FUNCTION webhooks_delivery_document(d webhooks_delivery) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_object(
    'id', d.event_id, 'type', d.event, 'state', d.state, 'attempts', d.attempts, 'created_at', d.created_at,
    'attempted_at', d.attempted_at, 'due_at', CASE WHEN d.state = 'pending' THEN d.due_at END,
    'status', d.status, 'error', d.error)
$$;

-- At most 20 of one user, counted under his row's lock; NULL is one more.
CREATE OR REPLACE FUNCTION webhooks_create(p_owner uuid, p_url text, p_events text[], p_nonce bytea)
RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE made webhooks_endpoint;
BEGIN
  PERFORM 1 FROM accounts_user WHERE id = p_owner FOR NO KEY UPDATE;
  IF (SELECT count(*) FROM webhooks_endpoint WHERE owner_id = p_owner) >= 20 THEN RETURN NULL; END IF;
  INSERT INTO webhooks_endpoint (id, owner_id, url, events, enabled, disabled_reason, nonce, created_at)
  VALUES (uuidv7(), p_owner, p_url, p_events, true, '', p_nonce, clock_timestamp()) RETURNING * INTO made;
  RETURN webhooks_document(made) || jsonb_build_object('secret', encode(p_nonce, 'hex'));
END $$;

CREATE OR REPLACE FUNCTION webhooks_list(p_owner uuid) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_object('items', coalesce(jsonb_agg(webhooks_document(e) ORDER BY e.id DESC), '[]'), 'next', NULL)
    FROM webhooks_endpoint e WHERE e.owner_id = p_owner
$$;

CREATE OR REPLACE FUNCTION webhooks_get(p_owner uuid, p_id uuid) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT webhooks_document(e) FROM webhooks_endpoint e WHERE e.owner_id = p_owner AND e.id = p_id
$$;

-- NULL keeps what is. Whoever enables one again gets what waited meanwhile.
CREATE OR REPLACE FUNCTION webhooks_change(p_owner uuid, p_id uuid, p_url text, p_events text[], p_enabled boolean)
RETURNS jsonb LANGUAGE sql AS $$
  UPDATE webhooks_endpoint e SET
    url = coalesce(p_url, url), events = coalesce(p_events, events), enabled = coalesce(p_enabled, enabled),
    disabled_reason = CASE WHEN p_enabled THEN '' ELSE disabled_reason END,
    paused_until = CASE WHEN p_enabled THEN NULL ELSE paused_until END
   WHERE e.owner_id = p_owner AND e.id = p_id RETURNING webhooks_document(e)
$$;

CREATE OR REPLACE FUNCTION webhooks_delete(p_owner uuid, p_id uuid) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE gone webhooks_endpoint;
BEGIN
  SELECT * INTO gone FROM webhooks_endpoint WHERE owner_id = p_owner AND id = p_id FOR UPDATE;
  IF NOT FOUND THEN RETURN NULL; END IF;
  DELETE FROM webhooks_delivery WHERE endpoint_id = p_id;
  DELETE FROM webhooks_endpoint WHERE id = p_id;
  RETURN webhooks_document(gone);
END $$;

-- A new secret; the one before signs too, for as long as receivers may still know only that.
CREATE OR REPLACE FUNCTION webhooks_rotate(p_owner uuid, p_id uuid, p_nonce bytea, p_overlap int)
RETURNS jsonb LANGUAGE sql AS $$
  UPDATE webhooks_endpoint e SET
    previous_nonce = nonce, nonce = p_nonce, previous_until = clock_timestamp() + make_interval(secs => p_overlap)
   WHERE e.owner_id = p_owner AND e.id = p_id
  RETURNING webhooks_document(e) || jsonb_build_object('secret', encode(p_nonce, 'hex'))
$$;

-- A delivery of its own, whatever the endpoint filters: is it reached, does its check hold?
CREATE OR REPLACE FUNCTION webhooks_test(p_owner uuid, p_id uuid) RETURNS jsonb LANGUAGE sql AS $$
  INSERT INTO webhooks_delivery AS d (endpoint_id, event_id, event, body, state, attempts, due_at, created_at, error)
  SELECT e.id, uuidv7(), 'webhook.test',
         json_build_object('type', 'webhook.test', 'timestamp', clock_timestamp(), 'sequence', 0, 'data', json_build_object('webhook', e.id)),
         'pending', 0, clock_timestamp(), clock_timestamp(), ''
    FROM webhooks_endpoint e WHERE e.owner_id = p_owner AND e.id = p_id FOR KEY SHARE
  RETURNING webhooks_delivery_document(d)
$$;

-- A page of an endpoint's deliveries, newest first; NULL filters nothing. `next` is the last one's id.
CREATE OR REPLACE FUNCTION webhooks_deliveries(p_owner uuid, p_id uuid, p_state text, p_event text, p_before uuid, p_limit int)
RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_object('items', coalesce(page.items, '[]'), 'next', CASE WHEN page.n = p_limit THEN page.last END)
    FROM webhooks_endpoint e CROSS JOIN LATERAL (
      SELECT jsonb_agg(webhooks_delivery_document(x)) AS items, count(*) AS n, (array_agg(x.event_id))[count(*)] AS last FROM (
        SELECT * FROM webhooks_delivery d
         WHERE d.endpoint_id = e.id AND (p_state IS NULL OR d.state = p_state) AND (p_event IS NULL OR d.event = p_event)
           AND (p_before IS NULL OR d.event_id < p_before)
         ORDER BY d.event_id DESC LIMIT p_limit) x) page
   WHERE e.owner_id = p_owner AND e.id = p_id
$$;

-- Send again: one delivery by its event, or all since a time; dead ones, the delivered ones if `p_delivered`.
-- The same event keeps its id. What is still being tried is left to that.
CREATE OR REPLACE FUNCTION webhooks_replay(p_owner uuid, p_id uuid, p_event uuid, p_since timestamptz, p_delivered boolean)
RETURNS jsonb LANGUAGE sql AS $$
  WITH again AS (
    UPDATE webhooks_delivery d SET state = 'pending', attempts = 0, due_at = clock_timestamp() FROM webhooks_endpoint e
     WHERE e.id = p_id AND e.owner_id = p_owner AND d.endpoint_id = e.id AND (d.event_id = p_event OR d.created_at >= p_since)
       AND (d.state = 'dead' OR (d.state = 'delivered' AND p_delivered)) RETURNING 1)
  SELECT jsonb_build_object('replayed', (SELECT count(*) FROM again)) FROM webhooks_endpoint e
   WHERE e.owner_id = p_owner AND e.id = p_id
     AND (p_event IS NULL OR EXISTS (SELECT 1 FROM webhooks_delivery d WHERE d.endpoint_id = p_id AND d.event_id = p_event))
$$;

-- An operator's replay of a dead delivery.
CREATE OR REPLACE FUNCTION webhooks_requeue(p_id bigint) RETURNS void LANGUAGE sql AS $$
  UPDATE webhooks_delivery SET state = 'pending', attempts = 0, due_at = clock_timestamp() WHERE id = p_id AND state = 'dead'
$$;
