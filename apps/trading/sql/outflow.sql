-- Money on its way out: withdrawals and payouts, each state change with its movement in the ledger.

-- One movement under an id that follows from `p_key`; repeating it changes nothing, any refusal is an exception.
CREATE OR REPLACE FUNCTION outflow_move(
  p_key text, p_action text, p_kind text, p_debit bigint, p_credit bigint, p_amount numeric, p_hold uuid, p_ref uuid
) RETURNS void LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
  code text := (ledger_apply(ARRAY[md5(p_key)::uuid], ARRAY[p_action], ARRAY[p_debit], ARRAY[p_credit], ARRAY[p_amount],
                             ARRAY[p_hold], ARRAY[p_kind], ARRAY[p_ref]))[1];
BEGIN
  IF code NOT IN ('ok', 'exists') THEN
    RAISE EXCEPTION 'the ledger refused %: %', p_kind, code USING ERRCODE = 'integrity_constraint_violation';
  END IF;
END $$;

-- Hold an amount for a withdrawal. `code` is ok, a code of the ledger, `halted` (detail: why), or whose limit of 24
-- hours it exceeds (detail: units left). One at a time, so that sums by user and by address are exact.
CREATE OR REPLACE FUNCTION withdrawal_open(p_id uuid, p_user uuid, p_network text, p_to text, p_amount numeric)
RETURNS TABLE (code text, detail text) LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
  target bytea := decode(substr(p_to, 3), 'hex');
  ait numeric := 1000000000000000000;
  daily numeric; threshold numeric; wait numeric; mine numeric; theirs numeric;
  moment timestamptz; known timestamptz; alone boolean;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('trading.withdrawals', 0));
  moment := clock_timestamp();
  SELECT halted INTO detail FROM chain_networkstatus WHERE network = p_network;
  IF detail <> '' THEN
    RETURN QUERY SELECT 'halted', detail;
    RETURN;
  END IF;
  SELECT value * ait INTO daily FROM accounts_parameter WHERE name = 'withdrawal_daily_ait';
  SELECT value * ait INTO threshold FROM accounts_parameter WHERE name = 'withdrawal_approval_ait';
  SELECT value INTO wait FROM accounts_parameter WHERE name = 'address_wait_seconds';
  SELECT coalesce(sum(amount) FILTER (WHERE user_id = p_user), 0), coalesce(sum(amount) FILTER (WHERE address = target), 0)
    INTO mine, theirs FROM trading_withdrawal
   WHERE created_at > moment - interval '1 day' AND state NOT IN ('failed', 'canceled', 'lapsed')
     AND (user_id = p_user OR address = target);
  IF greatest(mine, theirs) + p_amount > daily THEN
    RETURN QUERY SELECT CASE WHEN mine + p_amount > daily THEN 'you' ELSE 'this address' END,
      greatest(daily - CASE WHEN mine + p_amount > daily THEN mine ELSE theirs END, 0)::text;
    RETURN;
  END IF;
  alone := greatest(mine, theirs) + p_amount <= threshold;
  SELECT min(created_at) INTO known FROM trading_withdrawal WHERE user_id = p_user AND address = target;
  code := (ledger_apply(ARRAY[p_id], ARRAY['hold'], ARRAY[ledger_account(p_user, 'AIT', 'available')], ARRAY[NULL::bigint],
                        ARRAY[p_amount], ARRAY[NULL::uuid], ARRAY['withdrawal.hold'], ARRAY[p_id]))[1];
  IF code = 'ok' THEN
    INSERT INTO trading_withdrawal
      (id, user_id, network, address, amount, state, created_at, not_before, review_until, approval)
    VALUES (p_id, p_user, p_network, target, p_amount, CASE WHEN alone THEN 'waiting' ELSE 'review' END, moment,
            coalesce(known, moment) + wait * interval '1 second',
            CASE WHEN NOT alone THEN moment + interval '24 hours' END, '0x');
  END IF;
  RETURN NEXT;
END $$;

-- The end of one that did not leave: its amount is available again.
CREATE OR REPLACE FUNCTION withdrawal_release(p_id uuid, p_state text) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
BEGIN
  PERFORM outflow_move('released:' || p_id, 'void', 'withdrawal.released', NULL, NULL, NULL, p_id, p_id);
  UPDATE trading_withdrawal SET state = p_state, resolved_at = clock_timestamp() WHERE id = p_id AND resolved_at IS NULL;
END $$;

-- A final Withdrawn: ok, or `unknown`, or `differs` from what was asked.
CREATE OR REPLACE FUNCTION withdrawal_withdrawn(
  p_id uuid, p_network text, p_to text, p_amount numeric, p_tx text, p_block bigint, p_at timestamptz
) RETURNS text LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
  item trading_withdrawal;
BEGIN
  SELECT * INTO item FROM trading_withdrawal WHERE id = p_id FOR UPDATE;
  IF NOT FOUND THEN RETURN 'unknown'; END IF;
  IF item.amount <> p_amount OR item.address <> decode(substr(p_to, 3), 'hex') THEN RETURN 'differs'; END IF;
  PERFORM outflow_move('withdrawn:' || p_id, 'post', 'withdrawal', NULL,
                       ledger_account(NULL, 'AIT', 'external', p_network), p_amount, p_id, p_id);
  UPDATE trading_withdrawal
     SET state = 'final', resolved_at = p_at, tx_hash = decode(substr(p_tx, 3), 'hex'), block = p_block WHERE id = p_id;
  RETURN 'ok';
END $$;

-- Hold what providers with an address have available, together at most `p_most`; who spends his balance meanwhile is
-- left out. The rows are the leaves.
CREATE OR REPLACE FUNCTION payout_take(p_id uuid, p_network text, p_wait int, p_minimum numeric, p_most numeric)
RETURNS TABLE ("position" int, person uuid, address text, amount numeric, hold uuid)
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
  due record; n int; remaining numeric := p_most; codes text[];
  ids uuid[]; accounts bigint[]; amounts numeric[]; people uuid[]; addresses bytea[];
BEGIN
  FOR due IN
    SELECT t.user_id, t.address AS target, a.id, a.posted - a.held AS free FROM trading_payouttarget t
      JOIN trading_account a ON a.owner_id = t.user_id AND a.asset_id = 'AIT' AND a.kind = 'available'
     WHERE t.network = p_network AND t.set_at <= clock_timestamp() - p_wait * interval '1 second'
       AND a.posted - a.held >= p_minimum ORDER BY a.id LIMIT 1000
  LOOP
    CONTINUE WHEN least(due.free, remaining) < p_minimum;
    ids := ids || uuidv7();
    accounts := accounts || due.id;
    amounts := amounts || least(due.free, remaining);
    people := people || due.user_id;
    addresses := addresses || due.target;
    remaining := remaining - least(due.free, remaining);
  END LOOP;
  n := array_length(ids, 1);
  IF n IS NULL THEN RETURN; END IF;
  codes := ledger_apply(ids, array_fill('hold'::text, ARRAY[n]), accounts, array_fill(NULL::bigint, ARRAY[n]), amounts,
                        array_fill(NULL::uuid, ARRAY[n]), array_fill('payout.hold'::text, ARRAY[n]), array_fill(p_id, ARRAY[n]));
  RETURN QUERY
    SELECT (row_number() OVER (ORDER BY x.nth) - 1)::int, x.person, '0x' || encode(x.target, 'hex'), x.amount, x.id
      FROM unnest(ids, people, addresses, amounts, codes) WITH ORDINALITY AS x(id, person, target, amount, code, nth)
     WHERE x.code = 'ok' ORDER BY x.nth;
END $$;

-- The end of a batch: final makes each hold claimable on the chain, any other end releases it.
CREATE OR REPLACE FUNCTION payout_end(p_batch uuid, p_state text) RETURNS void
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
  leaf record; fine boolean := p_state = 'final';
BEGIN
  FOR leaf IN SELECT l.*, b.network FROM trading_payoutleaf l JOIN trading_payoutbatch b ON b.id = l.batch_id
               WHERE l.batch_id = p_batch ORDER BY l.position LOOP
    PERFORM outflow_move(
      CASE WHEN fine THEN 'claimable:' ELSE 'void:' END || leaf.hold, CASE WHEN fine THEN 'post' ELSE 'void' END,
      CASE WHEN fine THEN 'payout.claimable' ELSE 'payout.void' END, NULL,
      CASE WHEN fine THEN ledger_account(leaf.user_id, 'AIT', 'claimable', leaf.network) END,
      CASE WHEN fine THEN leaf.amount END, leaf.hold, p_batch);
  END LOOP;
  UPDATE trading_payoutbatch SET state = p_state, finalized_at = clock_timestamp() WHERE id = p_batch AND finalized_at IS NULL;
END $$;

-- A final Claimed: ok, or `differs` from the leaf.
CREATE OR REPLACE FUNCTION payout_claimed(p_batch uuid, p_position int, p_amount numeric, p_tx text, p_at timestamptz)
RETURNS text LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
  leaf record;
BEGIN
  SELECT l.*, b.network INTO STRICT leaf FROM trading_payoutleaf l JOIN trading_payoutbatch b ON b.id = l.batch_id
   WHERE l.batch_id = p_batch AND l.position = p_position FOR UPDATE OF l;
  IF leaf.amount <> p_amount THEN RETURN 'differs'; END IF;
  PERFORM outflow_move('claimed:' || leaf.hold, 'transfer', 'payout.claimed',
                       ledger_account(leaf.user_id, 'AIT', 'claimable', leaf.network),
                       ledger_account(NULL, 'AIT', 'external', leaf.network), p_amount, NULL, p_batch);
  UPDATE trading_payoutleaf SET claim_tx = decode(substr(p_tx, 3), 'hex'), claimed_at = p_at WHERE id = leaf.id;
  RETURN 'ok';
END $$;

-- Release what nobody approved in time; how many.
CREATE OR REPLACE FUNCTION reviews_lapse(p_limit int) RETURNS int
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
  late uuid; n int := 0;
BEGIN
  FOR late IN SELECT id FROM trading_withdrawal WHERE state = 'review' AND review_until < clock_timestamp()
               ORDER BY id LIMIT p_limit FOR UPDATE SKIP LOCKED LOOP
    PERFORM withdrawal_release(late, 'lapsed');
    n := n + 1;
  END LOOP;
  FOR late IN SELECT id FROM trading_payoutbatch WHERE state = 'review' AND review_until < clock_timestamp()
               ORDER BY id LIMIT p_limit FOR UPDATE SKIP LOCKED LOOP
    PERFORM payout_end(late, 'lapsed');
    n := n + 1;
  END LOOP;
  RETURN n;
END $$;

-- Leaves of receipts for a batch, in order, marked as its own: none when nothing waits, or when fewer than `p_limit`
-- wait and none of them is `p_older` seconds old.
CREATE OR REPLACE FUNCTION receipts_take(p_batch uuid, p_limit int, p_older int) RETURNS TABLE (leaf bytea)
LANGUAGE plpgsql SET search_path = public, pg_temp AS $$
DECLARE
  waiting bigint; oldest timestamptz;
BEGIN
  SELECT count(*), min(created_at) INTO waiting, oldest FROM trading_receipt_leaf WHERE batch_id IS NULL;
  IF waiting = 0 OR (waiting < p_limit AND oldest > clock_timestamp() - p_older * interval '1 second') THEN RETURN; END IF;
  RETURN QUERY
    WITH taken AS (
      UPDATE trading_receipt_leaf l SET batch_id = p_batch, position = o.place - 1
        FROM (SELECT t.id, row_number() OVER (ORDER BY t.id) AS place FROM (
                SELECT w.id FROM trading_receipt_leaf w WHERE w.batch_id IS NULL ORDER BY w.id LIMIT p_limit
                FOR UPDATE SKIP LOCKED) t) o
       WHERE l.id = o.id RETURNING l.position AS place, l.leaf AS hash)
    SELECT hash FROM taken ORDER BY place;
END $$;

-- Final batches of which leaves stay unclaimed for longer than the platform lets them; none while that is off (0).
CREATE OR REPLACE FUNCTION payouts_unclaimed(p_network text) RETURNS SETOF trading_payoutbatch
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
  SELECT b.* FROM trading_payoutbatch b JOIN accounts_parameter p ON p.name = 'claim_sweep_seconds' AND p.value > 0
   WHERE b.network = p_network AND b.state = 'final' AND b.finalized_at <= clock_timestamp() - p.value * interval '1 second'
     AND EXISTS (SELECT 1 FROM trading_payoutleaf l WHERE l.batch_id = b.id AND l.claimed_at IS NULL)
   ORDER BY b.id LIMIT 10
$$;
