-- The audit log: who did what to what, written by the database in the transaction that did it, whatever
-- program that was; append-only, and each row sealed over the one before.
-- The web says who acts in the setting aitbc.audit (AuditMiddleware); without it the platform itself did.

CREATE OR REPLACE FUNCTION audit_head(p_previous bytea, e accounts_auditevent) RETURNS bytea
LANGUAGE sql IMMUTABLE AS $$
  SELECT sha256('aitbc.audit'::bytea || p_previous || convert_to(jsonb_build_array(
    e.number, extract(epoch FROM e.at), e.xact, e.actor, e.action, e.subject, e.before, e.after, e.request_id,
    e.address)::text, 'UTF8'))
$$;

-- One writer at a time: the lock is taken when a transaction is about to commit, so nothing waits behind it.
CREATE OR REPLACE FUNCTION audit_write(p_action text, p_subject text, p_before jsonb, p_after jsonb) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  context jsonb := coalesce(nullif(current_setting('aitbc.audit', true), ''), '{}')::jsonb;
  last accounts_auditevent; e accounts_auditevent;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('accounts.audit', 0));
  SELECT * INTO last FROM accounts_auditevent ORDER BY number DESC LIMIT 1;
  e.number := coalesce(last.number, 0) + 1;
  e.at := clock_timestamp();
  e.xact := pg_current_xact_id()::text::bigint;
  e.actor := left(coalesce(context ->> 'actor', 'platform'), 60);
  e.action := p_action;
  e.subject := left(p_subject, 120);
  e.before := p_before;
  e.after := p_after;
  e.request_id := left(coalesce(context ->> 'request_id', ''), 64);
  e.address := left(coalesce(context ->> 'address', ''), 45);
  e.head := audit_head(coalesce(last.head, ''::bytea), e);
  INSERT INTO accounts_auditevent (number, at, xact, actor, action, subject, before, after, request_id, address, head)
  VALUES (e.number, e.at, e.xact, e.actor, e.action, e.subject, e.before, e.after, e.request_id, e.address, e.head);
END $$;

-- What changed in a row, of all its columns; of a password only that it did. Arguments: what it is, and its key.
CREATE OR REPLACE FUNCTION audit_row() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER
SET search_path = public, pg_temp AS $$
DECLARE
  unseen text[] := '{secret_hash,last_login,last_used_at,updated_at}';
  was jsonb := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) - unseen END;
  becomes jsonb := CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) - unseen END;
  before jsonb; after jsonb; verb text;
BEGIN
  SELECT jsonb_object_agg(key, CASE key WHEN 'password' THEN '"hidden"' ELSE value END) INTO before
    FROM jsonb_each(was) WHERE value IS DISTINCT FROM becomes -> key;
  SELECT jsonb_object_agg(key, CASE key WHEN 'password' THEN '"hidden"' ELSE value END) INTO after
    FROM jsonb_each(becomes) WHERE value IS DISTINCT FROM was -> key;
  IF before IS NULL AND after IS NULL THEN RETURN NULL; END IF;
  verb := CASE WHEN TG_ARGV[0] = 'admin' THEN (ARRAY['added', 'changed', 'deleted'])[(becomes ->> 'action_flag')::int]
               WHEN TG_OP = 'INSERT' THEN 'created' WHEN TG_OP = 'DELETE' THEN 'deleted'
               WHEN TG_ARGV[0] = 'withdrawal' THEN becomes ->> 'state'
               WHEN after ->> 'revoked_at' IS NOT NULL THEN 'revoked' ELSE 'changed' END;
  PERFORM audit_write(TG_ARGV[0] || '.' || verb,
                      TG_ARGV[0] || ':' || (coalesce(becomes, was) ->> TG_ARGV[1]), before, after);
  RETURN NULL;
END $$;

CREATE CONSTRAINT TRIGGER audit AFTER INSERT OR DELETE OR UPDATE OF revoked_at, scopes, expires_at, user_id, name
  ON accounts_apikey DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION audit_row('key', 'id');
CREATE CONSTRAINT TRIGGER audit
  AFTER INSERT OR DELETE OR UPDATE OF email, name, role, password, is_active, is_staff, is_superuser
  ON accounts_user DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION audit_row('user', 'id');
CREATE CONSTRAINT TRIGGER audit AFTER INSERT OR DELETE OR UPDATE ON accounts_user_groups
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION audit_row('group', 'user_id');
CREATE CONSTRAINT TRIGGER audit AFTER INSERT OR DELETE OR UPDATE ON accounts_user_user_permissions
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION audit_row('permission', 'user_id');
CREATE CONSTRAINT TRIGGER audit AFTER UPDATE OR DELETE ON accounts_parameter
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION audit_row('parameter', 'name');
CREATE CONSTRAINT TRIGGER audit AFTER INSERT ON django_admin_log
  DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION audit_row('admin', 'object_id');

CREATE OR REPLACE FUNCTION audit_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'the audit log is only added to' USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON accounts_auditevent
  FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse_change();

-- The first row that is not as it was written, and why; none when all are. That the last ones were cut off is
-- seen in the journal, which covers each row.
CREATE OR REPLACE FUNCTION audit_verify() RETURNS TABLE (number bigint, problem text) LANGUAGE sql STABLE AS $$
  WITH chain AS (SELECT e, coalesce(lag(e.number) OVER w, 0) AS previous, coalesce(lag(e.head) OVER w, '') AS head
                   FROM accounts_auditevent e WINDOW w AS (ORDER BY e.number))
  SELECT (e).number, CASE WHEN (e).number <> previous + 1 THEN 'rows before it are missing' ELSE 'it is not as it was written' END
    FROM chain WHERE (e).number <> previous + 1 OR (e).head <> audit_head(chain.head, e)
   ORDER BY (e).number LIMIT 1
$$;
