-- Disputes by re-execution (protocols 18), and the check of a model: the platform has work done again on a random miner of
-- somebody else and compares. Two like votes decide, of at most `reexecution_runs` runs; then there is an appeal to an
-- operator, within a window; then the payment is resolved. What no vote decides, an operator does.
-- Lock order: the disputed payment, its re-execution, a run, then jobs. Money moves in one call of the ledger per
-- transaction, but for the platform's own purse, which is locked last.

-- The platform as a client: an account that nobody signs in to.
CREATE OR REPLACE FUNCTION rerun_arbiter() RETURNS uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE hit uuid;
BEGIN
  INSERT INTO accounts_user (id, email, name, role, password, is_staff, is_superuser, is_active, created_at)
  SELECT uuidv7(), 'reexecution@platform.invalid', 'Re-execution', 'operator', '!', false, false, false, clock_timestamp()
   WHERE NOT EXISTS (SELECT FROM accounts_user WHERE email = 'reexecution@platform.invalid') ON CONFLICT DO NOTHING;
  SELECT id INTO STRICT hit FROM accounts_user WHERE email = 'reexecution@platform.invalid';
  RETURN hit;
END $$;

-- So much for the platform's own purse, out of its fees. False: no shard of them holds it.
CREATE OR REPLACE FUNCTION rerun_fund(p_arbiter uuid, p_amount numeric) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE purse bigint := ledger_account(p_arbiter, 'AIT', 'available'); lacking numeric; shard bigint;
BEGIN
  SELECT p_amount - (posted - held) INTO lacking FROM trading_account WHERE id = purse;
  IF lacking <= 0 THEN RETURN true; END IF;
  SELECT id INTO shard FROM trading_account WHERE owner_id IS NULL AND kind = 'fees' AND asset_id = 'AIT' AND posted - held >= lacking
   ORDER BY posted - held DESC LIMIT 1;
  RETURN shard IS NOT NULL AND trading_move(ARRAY[shard], ARRAY[purse], ARRAY[lacking], ARRAY['rerun.funds'], p_arbiter) IS NULL;
END $$;

-- Have this work done by a random miner that none of p_strangers owns, in another region than p_region if there is one.
-- p_client NULL: the platform pays. p_ms: device time that the price covers. NULL: there is no such miner, or no money.
CREATE OR REPLACE FUNCTION rerun_start(
  p_client uuid, p_about uuid, p_number int, p_kind text, p_input jsonb, p_input_artifact text, p_artifacts text[], p_like int,
  p_strangers uuid[], p_region text, p_ms bigint, p_expected jsonb, p_tolerance float8
) RETURNS uuid LANGUAGE plpgsql AS $$
DECLARE
  m gpu_miner; c gpu_job_class; payer uuid := coalesce(p_client, rerun_arbiter()); job uuid := uuidv7(); price numeric; fits int;
  ttl int := parameter_value('reexecution_seconds'); answer text; moment timestamptz := clock_timestamp();
BEGIN
  SELECT * INTO c FROM gpu_job_class WHERE id = p_like;
  FOR m IN SELECT * FROM gpu_miner x WHERE x.state = 'online' AND p_kind = ANY (x.kinds) AND x.owner_id <> ALL (p_strangers)
              AND NOT EXISTS (SELECT FROM gpu_occupancy o JOIN gpu_device d ON d.id = o.device_id WHERE d.miner_id = x.id AND o.during @> moment)
            ORDER BY (x.region = p_region) IS TRUE, random() LIMIT 20 LOOP
    fits := gpu_class_id(p_kind, c.gpu_model, c.min_vram_mb, c.cuda, NULL, c.model_names, NULL, m.id, NULL, 1);
    CONTINUE WHEN NOT (SELECT gpu_serves(m, k) FROM gpu_job_class k WHERE k.id = fits);
    price := gpu_ceil_div(m.price * p_ms, 1000);
    IF p_client IS NULL AND NOT rerun_fund(payer, price) THEN RETURN NULL; END IF;
    SELECT code INTO answer FROM gpu_submit_items(payer, jsonb_build_array(jsonb_build_object(
      'id', job, 'fresh_id', true, 'payment', uuidv7(), 'kind', p_kind, 'input', p_input, 'input_artifact', p_input_artifact,
      'artifacts', to_jsonb(coalesce(p_artifacts, '{}')), 'digest', encode(sha256(uuid_send(job)), 'hex'),
      'salt', encode(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())), 'hex'), 'max_price', price::text,
      'listed_price', m.price::text, 'ttl', ttl, 'priority', 0, 'gpu_model', c.gpu_model, 'min_vram_mb', c.min_vram_mb,
      'cuda', to_jsonb(c.cuda), 'models', to_jsonb(coalesce(c.model_names, '{}')), 'miner', m.id)));
    IF answer = 'insufficient_funds' THEN
      PERFORM trading_refuse(409, 'payment.insufficient_funds', 'the available balance does not cover the run');
    ELSIF answer <> 'ok' THEN RAISE EXCEPTION 'a run about % was refused: %', p_about, answer; END IF;
    INSERT INTO gpu_rerun (id, about, number, job, miner_id, expected, tolerance, state, started_at, deadline)
    VALUES (uuidv7(), p_about, p_number, job, m.id, p_expected, p_tolerance, 'running', moment, moment + ttl * interval '1 second' + p_ms * interval '1 millisecond');
    RETURN job;
  END LOOP;
  RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION rerun_output(p_job uuid, p_number int) RETURNS json LANGUAGE sql STABLE AS $$
  SELECT json_build_object('number', p_number, 'output', r.output, 'artifact', encode(r.output_artifact, 'hex'),
                           'measured', json_build_object('ms', j.units_ms, 'metrics', r.metrics))
    FROM gpu_job_result r JOIN gpu_job j ON j.id = r.job_id WHERE r.job_id = p_job
$$;

-- Runs that are over, for the comparison: what came out, and what it is compared with (number 0: the original). A run past
-- its deadline, or that a miner blames on its input, is ended first. `failed`: how a job without a result ended.
CREATE OR REPLACE FUNCTION rerun_due(p_limit int) RETURNS TABLE (id uuid, kind text, tolerance float8, failed text, came text, others text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE r gpu_rerun; j gpu_job; blame gpu_attempt;
BEGIN
  FOR r IN SELECT x.* FROM gpu_rerun x JOIN gpu_job y ON y.id = x.job WHERE x.state = 'running' AND (
             y.state NOT IN ('queued', 'leased', 'running') OR x.deadline <= clock_timestamp()
             OR EXISTS (SELECT FROM gpu_attempt a WHERE a.job_id = x.job AND a.fault = 'client'))
            ORDER BY x.deadline LIMIT p_limit FOR UPDATE OF x SKIP LOCKED LOOP
    SELECT * INTO j FROM gpu_job x WHERE x.id = r.job;
    SELECT * INTO blame FROM gpu_attempt a WHERE a.job_id = r.job AND a.fault = 'client' ORDER BY a.attempt LIMIT 1;
    IF j.state IN ('queued', 'leased', 'running') THEN PERFORM gpu_cancel(j.client_id, j.id); END IF;
    id := r.id; kind := j.kind; tolerance := r.tolerance; came := rerun_output(r.job, r.number);
    -- A model that a miner blames has failed; for a dispute one miner's word is no vote.
    failed := CASE WHEN came IS NULL THEN json_build_object('code', coalesce(blame.code, j.error_code, 'rerun.deadline'),
                'message', coalesce(blame.message, j.error_message),
                'state', CASE WHEN blame.id IS NOT NULL AND r.expected IS NOT NULL THEN 'differs' ELSE 'nothing' END) END;
    others := CASE WHEN r.expected IS NOT NULL THEN json_build_array(json_build_object('number', 0, 'output', r.expected)) ELSE (
      SELECT json_agg(o) FROM (
        SELECT rerun_output(x.job, 0) AS o FROM gpu_reexecution x WHERE x.payment_id = r.about
        UNION ALL SELECT rerun_output(y.job, y.number) FROM gpu_rerun y WHERE y.about = r.about AND y.state IN ('agrees', 'differs')) z
       WHERE o IS NOT NULL) END;
    RETURN NEXT;
  END LOOP;
END $$;

-- What the comparison found. p_with: the numbers of what it agrees with.
CREATE OR REPLACE FUNCTION rerun_record(p_id uuid, p_state text, p_measured jsonb, p_with int[]) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
  UPDATE gpu_rerun SET state = p_state, measured = p_measured, agrees_with = p_with, ended_at = clock_timestamp() WHERE id = p_id AND state = 'running';
  UPDATE gpu_reexecution SET due_at = clock_timestamp() WHERE payment_id = (SELECT about FROM gpu_rerun WHERE id = p_id) AND state = 'running';
END $$;

-- The client wants the work done again, and agrees that another miner sees his input. He deposits what the job had cost.
-- p_tolerances: by kind, of those that declare a comparison.
CREATE OR REPLACE FUNCTION reexecution_open(p_client uuid, p_payment uuid, p_tolerances jsonb) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE p trading_payment; cost numeric; deposit uuid := uuidv7(); purse bigint; code text; tolerance float8;
BEGIN
  PERFORM dispute_shown(p_client, p_payment);
  SELECT * INTO p FROM trading_payment WHERE id = p_payment FOR UPDATE;
  SELECT total INTO cost FROM trading_dispute WHERE payment_id = p_payment;
  IF p.client_id <> p_client THEN PERFORM trading_refuse(403, 'reexecution.client_only', 'the client alone decides who else sees his input');
  ELSIF p.state <> 'disputed' THEN PERFORM trading_refuse(409, 'payment.not_disputed', 'no dispute about this payment is open');
  END IF;
  SELECT (p_tolerances ->> j.kind)::float8 INTO tolerance FROM gpu_job j WHERE j.id = p.job;
  IF tolerance IS NULL THEN PERFORM trading_refuse(409, 'reexecution.not_reproducible', 'machines need not agree on this kind: an operator decides');
  ELSIF EXISTS (SELECT FROM gpu_reexecution WHERE payment_id = p_payment) THEN
    PERFORM trading_refuse(409, 'reexecution.exists', 'this dispute is being decided by re-execution already');
  ELSIF NOT EXISTS (SELECT FROM gpu_job_result WHERE job_id = p.job) THEN
    PERFORM trading_refuse(409, 'reexecution.no_result', 'this job has no result to compare with');
  END IF;
  purse := ledger_account(p_client, p.asset, 'available');
  code := (ledger_apply(ARRAY[deposit], ARRAY['hold'], ARRAY[purse], ARRAY[NULL::bigint], ARRAY[cost], ARRAY[NULL::uuid], ARRAY['rerun.deposit'], ARRAY[p_payment]))[1];
  IF code <> 'ok' THEN PERFORM trading_refuse(409, 'payment.insufficient_funds', 'the available balance does not cover the deposit'); END IF;
  INSERT INTO gpu_reexecution (payment_id, job, deposit, tolerance, state, due_at, created_at)
  SELECT p_payment, p.job, deposit, tolerance, 'running', t, t FROM clock_timestamp() t;
  RETURN dispute_shown(p_client, p_payment);
END $$;

-- Either party wants an operator's word instead of the verdict.
CREATE OR REPLACE FUNCTION reexecution_appeal(p_user uuid, p_payment uuid, p_reason text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
  PERFORM dispute_shown(p_user, p_payment);
  PERFORM 1 FROM trading_payment WHERE id = p_payment FOR UPDATE;
  UPDATE gpu_reexecution SET state = 'operator', reason = p_reason, appealed_by_id = p_user, due_at = NULL
   WHERE payment_id = p_payment AND state = 'decided' AND due_at > clock_timestamp();
  IF NOT FOUND THEN PERFORM trading_refuse(409, 'reexecution.no_appeal', 'there is no verdict whose window for an appeal is open'); END IF;
  RETURN dispute_shown(p_user, p_payment);
END $$;

CREATE OR REPLACE FUNCTION dispute_attach(p_user uuid, p_payment uuid, p_artifact text, p_note text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE p trading_payment; bytes bytea := decode(p_artifact, 'hex');
BEGIN
  PERFORM dispute_shown(p_user, p_payment);
  SELECT * INTO p FROM trading_payment WHERE id = p_payment FOR UPDATE;
  IF p.state <> 'disputed' THEN PERFORM trading_refuse(409, 'payment.not_disputed', 'no dispute about this payment is open');
  ELSIF NOT EXISTS (SELECT FROM gpu_artifact_grant g WHERE g.artifact_id = bytes AND g.user_id = p_user) THEN
    PERFORM trading_refuse(404, 'artifact.unknown', 'you have no such artifact', 'artifact');
  ELSIF (SELECT count(*) >= 20 FROM gpu_dispute_evidence WHERE payment_id = p_payment AND party_id = p_user) THEN
    PERFORM trading_refuse(409, 'dispute.evidence', 'twenty pieces of evidence are enough');
  END IF;
  INSERT INTO gpu_dispute_evidence (payment_id, party_id, artifact, note, at) VALUES (p_payment, p_user, bytes, p_note, clock_timestamp()) ON CONFLICT DO NOTHING;
  INSERT INTO gpu_artifact_grant (artifact_id, user_id, job, created_at)
  SELECT bytes, CASE WHEN p_user = p.client_id THEN p.provider_id ELSE p.client_id END, p.job, clock_timestamp() ON CONFLICT DO NOTHING;
  RETURN dispute_shown(p_user, p_payment);
END $$;

-- A dispute as its parties see it, with the runs and both sides' evidence. p_user NULL: the platform.
CREATE OR REPLACE FUNCTION dispute_shown(p_user uuid, p_payment uuid) RETURNS text LANGUAGE plpgsql STABLE
  SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE d gpu_dispute; x gpu_reexecution;
BEGIN
  SELECT * INTO d FROM gpu_dispute v WHERE v.payment_id = p_payment AND (p_user IS NULL OR p_user IN (v.client_id, v.provider_id));
  IF NOT FOUND THEN PERFORM trading_refuse(404, 'dispute.unknown', 'you have no such dispute'); END IF;
  SELECT * INTO x FROM gpu_reexecution WHERE payment_id = p_payment;
  RETURN json_build_object('payment', d.payment_id, 'job', d.job, 'state', d.state, 'due_at', d.due_at, 'claimed', trading_money(d.claimed, d.asset),
    'reason', d.reason, 'opened_at', d.opened_at, 'verdict', x.verdict, 'operator_because', x.reason, 'appealed_by', x.appealed_by_id,
    'original', (SELECT encode(sha256(convert_to(coalesce(r.output::text, encode(r.output_artifact, 'hex')), 'UTF8')), 'hex') FROM gpu_job_result r WHERE r.job_id = d.job),
    'runs', (SELECT coalesce(json_agg(json_build_object('number', r.number, 'state', r.state, 'miner', r.miner_id, 'measured', r.measured,
        'agrees_with', r.agrees_with, 'deadline', r.deadline, 'ended_at', r.ended_at) ORDER BY r.number), '[]') FROM gpu_rerun r WHERE r.about = p_payment),
    'evidence', (SELECT coalesce(json_agg(json_build_object('party', e.party_id, 'artifact', encode(e.artifact, 'hex'), 'note', e.note, 'at', e.at) ORDER BY e.at), '[]')
        FROM gpu_dispute_evidence e WHERE e.payment_id = p_payment))::text;
END $$;

-- Do what one re-execution needs next and say what that was; NULL when none needs anything. One that cannot be handled
-- waits a minute, and does not keep the others waiting.
CREATE OR REPLACE FUNCTION reexecution_next() RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE x gpu_reexecution; p trading_payment; done text;
BEGIN
  SELECT y.* INTO p FROM trading_payment y JOIN gpu_reexecution z ON z.payment_id = y.id
   WHERE z.state <> 'closed' AND (z.due_at <= clock_timestamp() OR (y.state <> 'disputed' AND z.due_at IS NULL)) ORDER BY z.due_at LIMIT 1 FOR UPDATE OF y SKIP LOCKED;
  IF NOT FOUND THEN RETURN NULL; END IF;
  SELECT * INTO x FROM gpu_reexecution WHERE payment_id = p.id FOR UPDATE;
  BEGIN
    done := CASE WHEN p.state <> 'disputed' THEN reexecution_close(x) WHEN x.state = 'decided' THEN reexecution_execute(x)
                 ELSE reexecution_turn(x, p) END;
  EXCEPTION WHEN integrity_constraint_violation OR data_exception OR SQLSTATE 'AI409' OR SQLSTATE 'AI422' THEN
    RAISE WARNING 're-execution of %: %', p.id, SQLERRM;
    UPDATE gpu_reexecution SET due_at = clock_timestamp() + interval '1 minute' WHERE payment_id = p.id;
    PERFORM payment_announce('stuck', p.id, jsonb_build_object('reason', SQLERRM));
    done := 'stuck';
  END;
  RETURN done;
END $$;

-- Nobody appealed.
CREATE OR REPLACE FUNCTION reexecution_execute(x gpu_reexecution) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  PERFORM payment_resolve(rerun_arbiter(), x.payment_id, CASE x.verdict WHEN 'refunded' THEN d.claimed ELSE 0 END, 'decided by re-execution: ' || x.verdict)
     FROM trading_dispute d WHERE d.payment_id = x.payment_id;
  RETURN 'resolved';
END $$;

-- Count the votes; decide, or have the work done once more, or leave it to an operator.
CREATE OR REPLACE FUNCTION reexecution_turn(x gpu_reexecution, p trading_payment) RETURNS text LANGUAGE plpgsql AS $$
DECLARE upheld int; against int; runs int; open int; judged text; j gpu_job; m gpu_miner; strangers uuid[]; why text;
BEGIN
  SELECT count(*) FILTER (WHERE r.state = 'agrees'),
         max(1 + (SELECT count(*) FROM gpu_rerun o WHERE o.about = r.about AND o.state = 'differs' AND o.number <> r.number
                     AND (o.number = ANY (r.agrees_with) OR r.number = ANY (o.agrees_with)))) FILTER (WHERE r.state = 'differs'),
         count(*), count(*) FILTER (WHERE r.state = 'running')
    INTO upheld, against, runs, open FROM gpu_rerun r WHERE r.about = p.id;
  judged := CASE WHEN upheld >= 2 THEN 'upheld' WHEN against >= 2 THEN 'refunded' END;
  IF judged IS NOT NULL THEN
    UPDATE gpu_reexecution SET state = 'decided', verdict = judged,
           due_at = clock_timestamp() + parameter_value('appeal_seconds') * interval '1 second' WHERE payment_id = p.id;
    PERFORM payment_announce('judged', p.id, jsonb_build_object('verdict', judged));
    RETURN 'decided';
  ELSIF open > 0 THEN
    UPDATE gpu_reexecution SET due_at = (SELECT max(r.deadline) FROM gpu_rerun r WHERE r.about = p.id) + interval '1 minute' WHERE payment_id = p.id;
    RETURN 'waiting';
  ELSIF runs < parameter_value('reexecution_runs') THEN
    SELECT * INTO j FROM gpu_job WHERE id = p.job;
    SELECT * INTO m FROM gpu_miner WHERE id = j.miner_id;
    SELECT ARRAY[p.client_id, p.provider_id] || coalesce(array_agg(o.owner_id), '{}') INTO strangers
      FROM gpu_rerun r JOIN gpu_miner o ON o.id = r.miner_id WHERE r.about = p.id;
    IF rerun_start(NULL, p.id, runs + 1, j.kind, j.input, encode(j.input_artifact, 'hex'), j.artifacts, j.job_class_id, strangers, m.region,
                   greatest(4 * coalesce(j.units_ms, 0), 60000), NULL, x.tolerance) IS NOT NULL THEN
      UPDATE gpu_reexecution SET due_at = (SELECT max(r.deadline) FROM gpu_rerun r WHERE r.about = p.id) + interval '1 minute' WHERE payment_id = p.id;
      RETURN 'started';
    END IF;
    why := 'no unrelated miner, or no money, for another run';
  END IF;
  UPDATE gpu_reexecution SET state = 'operator', due_at = NULL, reason = coalesce(why, 'the runs came to no verdict') WHERE payment_id = p.id;
  PERFORM payment_announce('undecided', p.id, jsonb_build_object('reason', coalesce(why, 'the runs came to no verdict')));
  RETURN 'operator';
END $$;

-- After the payment is resolved: a client who got less than half pays the runs, at most his deposit.
CREATE OR REPLACE FUNCTION reexecution_close(x gpu_reexecution) RETURNS text LANGUAGE plpgsql AS $$
DECLARE spent numeric; held numeric; lost boolean; codes text[];
BEGIN
  SELECT coalesce(sum(y.released + y.fee), 0) INTO spent FROM gpu_rerun r JOIN trading_payment y ON y.job = r.job WHERE r.about = x.payment_id;
  SELECT amount INTO held FROM trading_transfer WHERE id = x.deposit;
  SELECT d.refund * 2 < d.total INTO lost FROM trading_dispute d WHERE d.payment_id = x.payment_id;
  IF lost AND spent > 0 THEN
    codes := ledger_apply(ARRAY[uuidv7()], ARRAY['post'], ARRAY[NULL::bigint], ARRAY[ledger_account(NULL, 'AIT', 'fees', '', pg_backend_pid() % 16)],
                          ARRAY[least(held, spent)], ARRAY[x.deposit], ARRAY['rerun.cost'], ARRAY[x.payment_id]);
  ELSE
    codes := ledger_apply(ARRAY[uuidv7()], ARRAY['void'], ARRAY[NULL::bigint], ARRAY[NULL::bigint], ARRAY[NULL::numeric], ARRAY[x.deposit],
                          ARRAY['rerun.deposit_back'], ARRAY[x.payment_id]);
  END IF;
  IF codes <> ARRAY['ok'] THEN
    RAISE EXCEPTION 'the ledger refused the deposit of %: %', x.payment_id, codes USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  UPDATE gpu_reexecution SET state = 'closed', due_at = NULL WHERE payment_id = x.payment_id;
  RETURN 'closed';
END $$;

-- For the console: the payment, and the desk's view of the dispute about it.
CREATE OR REPLACE FUNCTION payment_page(p_payment uuid) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT (payment_shown(NULL, p_payment, NULL)::jsonb || CASE WHEN EXISTS (SELECT FROM trading_dispute d WHERE d.payment_id = p_payment)
    THEN jsonb_build_object('desk', dispute_shown(NULL, p_payment)::jsonb) ELSE '{}' END)::text
$$;
