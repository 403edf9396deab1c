-- What one owner may keep here (protocols 33): stored bytes, unfinished uploads, bytes of logs. A promise is made before a
-- body is read, under the owner's lock, so that two at once cannot both have the last bytes.
CREATE TABLE IF NOT EXISTS gpu_upload (
  id uuid PRIMARY KEY, owner_id uuid NOT NULL REFERENCES accounts_user, sha256 bytea NOT NULL CHECK (length(sha256) = 32),
  size bigint NOT NULL CHECK (size >= 0), received bigint NOT NULL DEFAULT 0 CHECK (received BETWEEN 0 AND size),
  touched_at timestamptz NOT NULL DEFAULT clock_timestamp(), finished_at timestamptz);
CREATE INDEX IF NOT EXISTS upload_of_owner ON gpu_upload (owner_id) WHERE finished_at IS NULL;
CREATE INDEX IF NOT EXISTS upload_touched ON gpu_upload (touched_at);
CREATE TABLE IF NOT EXISTS gpu_log_usage (client_id uuid PRIMARY KEY, bytes bigint NOT NULL);

CREATE OR REPLACE FUNCTION gpu_upload_document(u gpu_upload) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT json_build_object('id', u.id, 'sha256', encode(u.sha256, 'hex'), 'size', u.size, 'offset', u.received,
    'finished_at', u.finished_at, 'expires_at', u.touched_at + parameter_value('partial_upload_seconds') * interval '1 second')
$$;

-- Reserve the bytes of an upload. Bytes that the owner has stored already are not counted twice.
CREATE OR REPLACE FUNCTION gpu_upload_open(p_id uuid, p_owner uuid, p_sha256 text, p_size bigint, p_most bigint)
RETURNS text LANGUAGE plpgsql AS $$
DECLARE stored bigint; partial bigint; opened int; hash bytea; u gpu_upload;
BEGIN
  IF p_sha256 !~ '^[0-9a-f]{64}$' THEN
    PERFORM trading_refuse(422, 'artifact.hash', 'an artifact is named by its SHA-256 in lower-case hex', 'sha256');
  ELSIF p_size > p_most THEN
    PERFORM trading_refuse(422, 'artifact.too_large', format('at most %s bytes', p_most), 'size');
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended(p_owner::text, 33));
  hash := decode(p_sha256, 'hex');
  SELECT coalesce(sum(a.size), 0) INTO stored FROM gpu_artifact a WHERE a.sha256 <> hash AND EXISTS (
    SELECT 1 FROM gpu_artifact_grant g WHERE g.artifact_id = a.sha256 AND g.user_id = p_owner AND g.job IS NULL);
  SELECT coalesce(sum(x.size), 0), count(*) INTO partial, opened FROM gpu_upload x WHERE x.owner_id = p_owner AND x.finished_at IS NULL;
  IF stored + partial + p_size > parameter_value('max_stored_bytes') THEN
    PERFORM trading_refuse(429, 'artifact.quota', format('your artifacts would exceed %s bytes', parameter_value('max_stored_bytes')));
  ELSIF partial + p_size > parameter_value('max_partial_bytes') OR opened >= 1000 THEN
    PERFORM trading_refuse(429, 'upload.quota', format('you have %s unfinished uploads of %s bytes: finish or delete them first', opened, partial));
  END IF;
  INSERT INTO gpu_upload (id, owner_id, sha256, size) VALUES (p_id, p_owner, hash, p_size) RETURNING * INTO u;
  RETURN gpu_upload_document(u);
END $$;

CREATE OR REPLACE FUNCTION gpu_upload_shown(p_owner uuid, p_id uuid) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE u gpu_upload;
BEGIN
  SELECT * INTO u FROM gpu_upload WHERE id = p_id AND owner_id = p_owner;
  IF NOT FOUND THEN PERFORM trading_refuse(404, 'upload.unknown', 'you have no such upload'); END IF;
  RETURN gpu_upload_document(u);
END $$;

-- So many bytes are on the disk now.
CREATE OR REPLACE FUNCTION gpu_upload_received(p_id uuid, p_received bigint) RETURNS void LANGUAGE sql AS $$
  UPDATE gpu_upload SET received = p_received, touched_at = clock_timestamp() WHERE id = p_id
$$;

-- The bytes were checked and are in the store: grant them to whoever sent them. A repeat changes nothing.
CREATE OR REPLACE FUNCTION gpu_upload_finish(p_id uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE u gpu_upload;
BEGIN
  UPDATE gpu_upload SET finished_at = coalesce(finished_at, clock_timestamp()), received = size WHERE id = p_id RETURNING * INTO STRICT u;
  INSERT INTO gpu_artifact (sha256, size, created_at) VALUES (u.sha256, u.size, clock_timestamp()) ON CONFLICT DO NOTHING;
  INSERT INTO gpu_artifact_grant (artifact_id, user_id, created_at) VALUES (u.sha256, u.owner_id, clock_timestamp()) ON CONFLICT DO NOTHING;
END $$;

-- Bytes of logs by the client whose jobs wrote them.
CREATE OR REPLACE FUNCTION gpu_count_log() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO gpu_log_usage AS u SELECT j.client_id, sum(octet_length(array_to_string(l.lines, ' ')) + 1) FROM changed l
      JOIN gpu_job j ON j.id = l.job_id GROUP BY 1 ORDER BY 1
    ON CONFLICT (client_id) DO UPDATE SET bytes = u.bytes + excluded.bytes;
  ELSE
    UPDATE gpu_log_usage u SET bytes = u.bytes - x.bytes FROM (
      SELECT j.client_id, sum(octet_length(array_to_string(l.lines, ' ')) + 1) AS bytes FROM changed l
        JOIN gpu_job j ON j.id = l.job_id GROUP BY 1) x WHERE u.client_id = x.client_id;
  END IF;
  RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER log_counted AFTER INSERT ON gpu_job_log REFERENCING NEW TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION gpu_count_log();
CREATE OR REPLACE TRIGGER log_uncounted AFTER DELETE ON gpu_job_log REFERENCING OLD TABLE AS changed
  FOR EACH STATEMENT EXECUTE FUNCTION gpu_count_log();

-- Uploads that nobody went on with, and logs of jobs that ended long ago -> how many of both.
CREATE OR REPLACE FUNCTION gpu_forget(p_limit int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE uploads int; logs int; old timestamptz := clock_timestamp() - parameter_value('log_days') * interval '1 day';
BEGIN
  IF NOT pg_try_advisory_xact_lock(hashtextextended('gpu_forget', 0)) THEN RETURN 0; END IF;
  DELETE FROM gpu_upload WHERE touched_at < clock_timestamp() - parameter_value('partial_upload_seconds') * interval '1 second';
  GET DIAGNOSTICS uploads = ROW_COUNT;
  -- Ids of jobs begin with the moment they were made in: the oldest logs are found without reading the jobs.
  DELETE FROM gpu_job_log l WHERE l.job_id IN (
    SELECT DISTINCT x.job_id FROM gpu_job_log x JOIN gpu_job j ON j.id = x.job_id AND j.finished_at < old
     WHERE x.job_id < (lpad(to_hex((extract(epoch FROM old) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid LIMIT p_limit);
  GET DIAGNOSTICS logs = ROW_COUNT;
  RETURN uploads + logs;
END $$;
