-- What the parties of a payment may do once its job is over, and what an operator decides between them.
-- A refusal is an exception of class AI: its three digits are the HTTP status, its message is the stable
-- code, its detail is for people, its hint the field that is wrong. It leaves nothing behind.
-- Rows are found by an index, also by a session that planned while the tables were still empty.
-- Lock order: the payment, then accounts by id in one call of the ledger.

CREATE OR REPLACE FUNCTION trading_refuse(p_status int, p_code text, p_detail text, p_field text DEFAULT '') RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION USING ERRCODE = 'AI' || p_status, MESSAGE = p_code, DETAIL = p_detail, HINT = p_field;
END $$;

-- Into the outbox, under the row lock of what it tells of.
CREATE OR REPLACE FUNCTION trading_announce(p_event text, p_aggregate text, p_payload jsonb) RETURNS void LANGUAGE sql AS $$
  INSERT INTO core_outbox (event_id, event, aggregate, payload, created_at, attempts, next_attempt_at, dead, last_error)
  VALUES (uuidv7(), p_event, p_aggregate, p_payload, clock_timestamp(), 0, clock_timestamp(), false, '')
$$;

-- Transfers that must all succeed; zero amounts are left out. NULL, or the ledger's first refusal.
CREATE OR REPLACE FUNCTION trading_move(
  p_debits bigint[], p_credits bigint[], p_amounts numeric[], p_kinds text[], p_reference uuid
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE codes text[];
BEGIN
  SELECT ledger_apply(array_agg(uuidv7()), array_agg('transfer'::text), array_agg(x.debit ORDER BY o), array_agg(x.credit ORDER BY o),
                      array_agg(x.amount ORDER BY o), array_agg(NULL::uuid), array_agg(x.kind ORDER BY o),
                      array_agg(p_reference), array_agg(1))
    INTO codes FROM unnest(p_debits, p_credits, p_amounts, p_kinds) WITH ORDINALITY AS x(debit, credit, amount, kind, o)
   WHERE x.amount <> 0;
  RETURN (array_remove(array_remove(codes, 'ok'), 'linked_failed'))[1];
END $$;

CREATE OR REPLACE FUNCTION trading_money(p_units numeric, p_asset text) RETURNS json LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT CASE WHEN p_units IS NOT NULL THEN json_build_object(
    'amount', trim_scale(p_units * 0.000000000000000001)::text, 'asset', p_asset) END
$$;

-- The payment as both of its parties see it.
CREATE OR REPLACE FUNCTION payment_document(p trading_payment) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT json_build_object(
    'id', p.id, 'job', p.job, 'state', p.state, 'held', trading_money(p.held, p.asset),
    'released', trading_money(p.released, p.asset), 'refunded', trading_money(p.refunded, p.asset),
    'fee', trading_money(p.fee, p.asset), 'created_at', p.created_at, 'resolved_at', p.resolved_at,
    'matures_at', p.matures_at, 'matured_at', p.matured_at,
    'dispute', (SELECT json_build_object(
       'claimed', trading_money(d.claimed, p.asset), 'reason', d.reason, 'opened_at', d.opened_at,
       'refund', trading_money(d.refund, p.asset), 'note', d.note, 'resolved_at', d.resolved_at)
       FROM trading_dispute d WHERE d.payment_id = p.id))::text
$$;

-- By its id or by its job, for a party of it. p_user NULL: the platform.
CREATE OR REPLACE FUNCTION payment_shown(p_user uuid, p_payment uuid, p_job uuid) RETURNS text LANGUAGE plpgsql
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE p trading_payment;
BEGIN
  IF p_payment IS NOT NULL THEN SELECT * INTO p FROM trading_payment WHERE id = p_payment;
  ELSE SELECT * INTO p FROM trading_payment WHERE job = p_job; END IF;
  IF p.id IS NULL OR (p_user IS NOT NULL AND (p_user IN (p.client_id, p.provider_id)) IS NOT TRUE) THEN
    PERFORM trading_refuse(404, 'payment.unknown', 'you have no such payment');
  END IF;
  RETURN payment_document(p);
END $$;

-- Lock a party's payment that is settled and has something left to act on. p_job NULL: not named.
CREATE OR REPLACE FUNCTION payment_settled(p_user uuid, p_payment uuid, p_job uuid) RETURNS trading_payment LANGUAGE plpgsql AS $$
DECLARE p trading_payment;
BEGIN
  SELECT * INTO p FROM trading_payment WHERE id = p_payment AND p_user IN (client_id, provider_id) FOR UPDATE;
  IF NOT FOUND THEN PERFORM trading_refuse(404, 'payment.unknown', 'you have no such payment'); END IF;
  IF p.job <> p_job THEN
    PERFORM trading_refuse(422, 'payment.job_mismatch', 'this payment is of another job', 'job_id');
  ELSIF p.state = 'escrowed' THEN
    PERFORM trading_refuse(409, 'payment.not_final', 'the job is not over: its meter decides; to end it, cancel the job');
  ELSIF p.state = 'disputed' THEN
    PERFORM trading_refuse(409, 'payment.disputed', 'an operator decides about this payment now');
  ELSIF p.released + p.fee = 0 THEN
    PERFORM trading_refuse(409, 'payment.final', 'all of this payment returned to the client already');
  END IF;
  RETURN p;
END $$;

-- The client is content: the dispute window ends now, and the earning is available.
CREATE OR REPLACE FUNCTION payment_release(p_user uuid, p_payment uuid, p_job uuid, p_reason text, p_amount numeric) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE p trading_payment := payment_settled(p_user, p_payment, p_job);
BEGIN
  IF p.client_id <> p_user THEN
    PERFORM trading_refuse(403, 'payment.client_only', 'only its client can release a payment');
  ELSIF p_amount IS NOT NULL THEN
    PERFORM trading_refuse(422, 'payment.amount', 'a release is of all that the job cost', 'amount');
  ELSIF p.matures_at IS NULL OR p.matured_at IS NOT NULL THEN
    PERFORM trading_refuse(409, 'payment.final', 'nothing of this payment waits to be released');
  END IF;
  UPDATE trading_payment SET matures_at = least(matures_at, clock_timestamp()) WHERE id = p.id;
  PERFORM payments_move_matured(ARRAY[p.id]);
  PERFORM payment_announce('released', p.id, jsonb_build_object('reason', p_reason));
  RETURN payment_shown(p_user, p.id, NULL);
END $$;

-- Who paid asks for his money back, which opens a dispute; who earned it gives it back at once.
CREATE OR REPLACE FUNCTION payment_refund(p_user uuid, p_payment uuid, p_job uuid, p_reason text, p_amount numeric) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE p trading_payment := payment_settled(p_user, p_payment, p_job); amount numeric;
BEGIN
  IF p.client_id = p_user THEN RETURN payment_object(p, p_reason, p_amount); END IF;
  amount := payment_part(p, p_amount);
  PERFORM payment_give_back(p, amount, 'job.returned', p.matures_at);
  PERFORM payment_announce('returned', p.id, jsonb_build_object('reason', p_reason, 'amount', amount::text));
  RETURN payment_shown(p_user, p.id, NULL);
END $$;

-- The client's word within the window, for which he says why.
CREATE OR REPLACE FUNCTION payment_dispute(p_user uuid, p_payment uuid, p_job uuid, p_reason text, p_amount numeric) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE p trading_payment := payment_settled(p_user, p_payment, p_job);
BEGIN
  IF p.client_id <> p_user THEN
    PERFORM trading_refuse(403, 'payment.client_only', 'only its client can dispute a payment');
  ELSIF btrim(p_reason) = '' THEN
    PERFORM trading_refuse(422, 'payment.reason', 'say why', 'reason');
  END IF;
  RETURN payment_object(p, p_reason, p_amount);
END $$;

-- Nothing of a disputed payment matures until an operator has decided, once.
CREATE OR REPLACE FUNCTION payment_object(p trading_payment, p_reason text, p_amount numeric) RETURNS text LANGUAGE plpgsql AS $$
DECLARE amount numeric := payment_part(p, p_amount);
BEGIN
  IF EXISTS (SELECT FROM trading_dispute WHERE payment_id = p.id) THEN
    PERFORM trading_refuse(409, 'payment.dispute_resolved', 'the dispute about this payment was resolved already');
  ELSIF (p.matured_at IS NULL AND p.matures_at > clock_timestamp()) IS NOT TRUE THEN
    PERFORM trading_refuse(409, 'payment.window_closed', 'the dispute window of this payment is over');
  END IF;
  INSERT INTO trading_dispute (payment_id, total, claimed, reason, opened_at)
  VALUES (p.id, p.released + p.fee, amount, p_reason, clock_timestamp());
  UPDATE trading_payment SET state = 'disputed', matures_at = NULL WHERE id = p.id;
  PERFORM payment_announce('disputed', p.id, jsonb_build_object('reason', p_reason, 'amount', amount::text));
  RETURN payment_shown(p.client_id, p.id, NULL);
END $$;

-- An operator decides: p_refund units return to the client, the provider keeps the rest, which matures now.
CREATE OR REPLACE FUNCTION payment_resolve(p_operator uuid, p_payment uuid, p_refund numeric, p_note text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE p trading_payment;
BEGIN
  SELECT * INTO p FROM trading_payment WHERE id = p_payment FOR UPDATE;
  IF NOT FOUND THEN
    PERFORM trading_refuse(404, 'payment.unknown', 'there is no such payment');
  ELSIF p.state <> 'disputed' THEN
    PERFORM trading_refuse(409, 'payment.not_disputed', 'no dispute about this payment is open');
  ELSIF p_operator IN (p.client_id, p.provider_id) THEN
    PERFORM trading_refuse(403, 'payment.own_dispute', 'nobody decides a dispute of his own');
  ELSIF (p_refund BETWEEN 0 AND p.released + p.fee AND p_refund = trunc(p_refund)) IS NOT TRUE THEN
    PERFORM trading_refuse(422, 'payment.amount', 'refund between nothing and what the job cost', 'refund');
  END IF;
  UPDATE trading_dispute SET refund = p_refund, note = p_note, resolved_by_id = p_operator, resolved_at = clock_timestamp()
   WHERE payment_id = p.id;
  PERFORM payment_give_back(p, p_refund, 'job.disputed', clock_timestamp());
  PERFORM payment_announce('resolved', p.id, jsonb_build_object('refund', p_refund::text, 'note', p_note));
END $$;

-- A part of what the job cost, or all of it.
CREATE OR REPLACE FUNCTION payment_part(p trading_payment, p_amount numeric) RETURNS numeric LANGUAGE plpgsql AS $$
BEGIN
  IF p_amount <= 0 OR p_amount > p.released + p.fee OR p_amount <> trunc(p_amount) THEN
    PERFORM trading_refuse(422, 'payment.amount', 'more than nothing, and at most what the job cost', 'amount');
  END IF;
  RETURN coalesce(p_amount, p.released + p.fee);
END $$;

-- Return p_amount of a settled payment to its client, as transfers of their own: floor(fee * amount / cost) out of the
-- fees, the rest from the provider. What the platform keeps is thus ceil(fee * rest / cost): its payer gains no unit.
CREATE OR REPLACE FUNCTION payment_give_back(p trading_payment, p_amount numeric, p_kind text, p_matures timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
  cost numeric := p.released + p.fee; of_fee numeric := div(p.fee * p_amount, p.released + p.fee); of_provider numeric; bad text;
  client bigint := ledger_account(p.client_id, p.asset, 'available');
BEGIN
  of_provider := p_amount - of_fee;
  bad := trading_move(
    ARRAY[ledger_account(p.provider_id, p.asset, CASE WHEN p.matured_at IS NULL THEN 'maturing' ELSE 'available' END),
          (SELECT credit_id FROM trading_transfer WHERE reference = p.job AND kind = 'job.fee')],   -- the shard that got it
    ARRAY[client, client], ARRAY[of_provider, of_fee], ARRAY[p_kind, p_kind || '_fee'], p.job);
  IF bad = 'insufficient_funds' THEN
    PERFORM trading_refuse(409, 'payment.insufficient_funds', 'the available balance does not cover this amount');
  ELSIF bad IS NOT NULL THEN
    RAISE EXCEPTION 'the ledger refused to return %: %', p.id, bad USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  UPDATE trading_payment SET released = released - of_provider, fee = fee - of_fee, refunded = refunded + p_amount,
         state = CASE WHEN p_amount = cost THEN 'refunded' WHEN refunded + p_amount > 0 THEN 'partially_released' ELSE 'released' END,
         matures_at = CASE WHEN matured_at IS NOT NULL THEN matures_at WHEN released > of_provider THEN p_matures END
   WHERE id = p.id;
END $$;

CREATE OR REPLACE FUNCTION payment_announce(p_what text, p_payment uuid, p_more jsonb) RETURNS void LANGUAGE sql AS $$
  SELECT trading_announce('trading.payment_' || p_what, 'payment:' || p.id, p_more || jsonb_build_object(
    'payment', p.id, 'job', p.job, 'client', p.client_id, 'provider', p.provider_id, 'state', p.state))
    FROM trading_payment p WHERE p.id = p_payment
$$;

-- What was returned of settled payments, by voluntary refunds and by disputes: for the audit.
CREATE OR REPLACE FUNCTION audit_returns() RETURNS TABLE (job uuid, total numeric, fee numeric, disputed numeric) LANGUAGE sql STABLE AS $$
  SELECT reference, sum(amount), coalesce(sum(amount) FILTER (WHERE kind IN ('job.returned_fee', 'job.disputed_fee')), 0),
         coalesce(sum(amount) FILTER (WHERE kind IN ('job.disputed', 'job.disputed_fee')), 0)
    FROM trading_transfer WHERE kind IN ('job.returned', 'job.returned_fee', 'job.disputed', 'job.disputed_fee') GROUP BY reference
$$;

-- An open dispute is that of a disputed payment, which does not mature; a resolved one returned exactly its refund.
CREATE OR REPLACE FUNCTION audit_disputes() RETURNS SETOF text LANGUAGE sql STABLE AS $$
  SELECT d.payment_id::text FROM trading_dispute d LEFT JOIN trading_payment p ON p.id = d.payment_id
    LEFT JOIN audit_returns() r ON r.job = p.job
   WHERE (p.state = 'disputed') IS DISTINCT FROM (d.resolved_at IS NULL)
      OR (d.resolved_at IS NULL AND (p.matured_at IS NOT NULL OR p.matures_at IS NOT NULL OR d.total <> p.released + p.fee))
      OR coalesce(r.disputed, 0) <> coalesce(d.refund, 0)
  UNION ALL
  SELECT p.id::text FROM trading_payment p LEFT JOIN audit_returns() r ON r.job = p.job
   WHERE (p.state = 'disputed' OR r.disputed > 0) AND NOT EXISTS (SELECT FROM trading_dispute d WHERE d.payment_id = p.id)
$$;
