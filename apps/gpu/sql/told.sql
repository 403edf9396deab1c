-- What clients hear of their jobs (events of `aitbc.webhooks`), told in the transaction that ends the job.
CREATE OR REPLACE FUNCTION gpu_told_job() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM webhooks_tell('job.' || NEW.state, 'job:' || NEW.id, ARRAY[NEW.client_id], jsonb_build_object(
    'id', NEW.id, 'kind', NEW.kind, 'state', NEW.state, 'created_at', NEW.created_at, 'finished_at', NEW.finished_at,
    'error', CASE WHEN NEW.error_code IS NOT NULL THEN jsonb_build_object('code', NEW.error_code, 'message', NEW.error_message) END));
  RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER job_told AFTER UPDATE OF state ON gpu_job
  FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state AND NEW.state IN ('completed', 'failed', 'canceled', 'expired'))
  EXECUTE FUNCTION gpu_told_job();
