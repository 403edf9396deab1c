-- The ledger's only writer. SECURITY DEFINER with a fixed search_path: the application's role may
-- execute it and has no right of its own to change accounts, transfers or entries.

CREATE OR REPLACE FUNCTION ledger_account(
  p_owner uuid, p_asset text, p_kind text, p_chain text DEFAULT '', p_shard int DEFAULT 0
) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
  SET plan_cache_mode = force_generic_plan AS $$
DECLARE hit bigint;
BEGIN
  SELECT id INTO hit FROM trading_account
   WHERE owner_id IS NOT DISTINCT FROM p_owner AND asset_id = p_asset AND kind = p_kind
     AND chain = p_chain AND shard = p_shard;
  IF FOUND THEN RETURN hit; END IF;
  IF p_kind NOT IN ('available', 'maturing', 'escrow', 'bond', 'fees', 'treasury', 'external', 'claimable', 'unattributed') THEN
    RAISE EXCEPTION 'there is no account kind %', p_kind USING ERRCODE = 'invalid_parameter_value';
  END IF;
  INSERT INTO trading_account (owner_id, asset_id, kind, chain, shard, posted, held, overdraft, created_at)
  VALUES (p_owner, p_asset, p_kind, p_chain, p_shard, 0, 0, p_kind = 'external', clock_timestamp())
  ON CONFLICT ON CONSTRAINT account_one_per_kind DO NOTHING;
  SELECT id INTO STRICT hit FROM trading_account
   WHERE owner_id IS NOT DISTINCT FROM p_owner AND asset_id = p_asset AND kind = p_kind
     AND chain = p_chain AND shard = p_shard;
  RETURN hit;
END $$;

-- Applies a batch in order and returns one code per item; one bad item does not sink the others.
-- Actions, and what each one names beside id, kind and reference (anything else given is an exception):
--   transfer  debit, credit, amount   debit -> credit at once
--   hold      debit, amount           reserve on debit; with a timeout (seconds) only until then, by database time
--   post      hold, credit, amount    pay `credit` out of `hold`; the items of one hold in one call are its
--                                     one resolution, and what they leave returns to its debit account
--   void      hold                    release `hold`
-- A linked group (neighbours with the same p_links number, 0 = alone) is applied whole or not at all.
-- Codes: ok, exists, exists_with_different_<action|hold|debit|credit|amount|kind|reference|timeout>,
-- insufficient_funds, amount_not_positive (or not a whole number), amount_too_large, account_unknown,
-- asset_mismatch, same_account, hold_unknown (also one made in the same call), hold_already_posted,
-- hold_already_voided, hold_already_expired, exceeds_hold, timeout_not_positive, linked_failed. What is refused leaves no trace, not even its id.
-- A balance of more than 38 digits raises numeric_value_out_of_range. Two callers that bring the same new id
-- at the same moment and share no account cannot see each other: the later one gets unique_violation on
-- trading_transfer_pkey, and by then a second call tells `exists` from `exists_with_different_<field>`.
-- Locks: holds by id, then accounts by id, then new ids in order: single calls never deadlock.
DROP FUNCTION IF EXISTS ledger_apply(uuid[], text[], bigint[], bigint[], numeric[], uuid[], text[], uuid[], int[]);
CREATE OR REPLACE FUNCTION ledger_apply(
  p_ids uuid[], p_actions text[], p_debits bigint[], p_credits bigint[], p_amounts numeric[],
  p_holds uuid[], p_kinds text[], p_refs uuid[], p_links int[] DEFAULT NULL, p_timeouts int[] DEFAULT NULL
) RETURNS text[] LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
  SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
  n int := coalesce(array_length(p_ids, 1), 0);
  codes text[] := array_fill(NULL::text, ARRAY[greatest(n, 1)]);
  debits bigint[] := p_debits;          -- of a post: the hold's debit account
  moment timestamptz := clock_timestamp();
  acc_ids bigint[]; acc_posted numeric[]; acc_held numeric[]; acc_free boolean[]; acc_assets text[];
  d_posted numeric[]; d_held numeric[];
  hold_ids uuid[]; hold_states text[]; hold_debits bigint[]; hold_amounts numeric[]; hold_left numeric[];
  known uuid[]; s_posted numeric[]; s_held numeric[]; s_states text[]; s_left numeric[];
  i int; j int; k int; a int; c int; e int; h int; code text;
BEGIN
  IF n = 0 THEN RETURN ARRAY[]::text[]; END IF;
  IF n = 1 AND p_timeouts[1] IS NULL AND ledger_one(
       p_ids[1], p_actions[1], p_debits[1], p_credits[1], p_amounts[1], p_holds[1], p_kinds[1], p_refs[1]) THEN
    RETURN ARRAY['ok'];
  END IF;
  IF p_holds IS NOT NULL AND array_length(array_remove(p_holds, NULL), 1) > 0 THEN
    SELECT array_agg(t.id), array_agg(CASE WHEN t.expires_at <= moment AND t.state = 'pending' THEN 'expired' ELSE t.state END),
           array_agg(t.debit_id), array_agg(t.amount)
      INTO hold_ids, hold_states, hold_debits, hold_amounts
      FROM (SELECT id, state, debit_id, amount, expires_at FROM trading_transfer
             WHERE id = ANY (p_holds) AND credit_id IS NULL AND hold IS NULL ORDER BY id FOR UPDATE) t;
    hold_left := hold_amounts;
    FOR i IN 1..n LOOP
      h := array_position(hold_ids, p_holds[i]);
      IF h IS NOT NULL THEN debits[i] := hold_debits[h]; END IF;
    END LOOP;
  END IF;
  SELECT array_agg(t.id), array_agg(t.posted), array_agg(t.held), array_agg(t.overdraft), array_agg(t.asset_id::text)
    INTO acc_ids, acc_posted, acc_held, acc_free, acc_assets
    FROM (SELECT id, posted, held, overdraft, asset_id FROM trading_account
           WHERE id = ANY (debits || p_credits) ORDER BY id FOR NO KEY UPDATE) t;
  d_posted := array_fill(0::numeric, ARRAY[greatest(coalesce(array_length(acc_ids, 1), 0), 1)]);
  d_held := d_posted;
  -- Read only now: a rival with the same ids waited on the same account locks and is visible here.
  SELECT array_agg(id) INTO known FROM trading_transfer WHERE id = ANY (p_ids);

  i := 1;
  WHILE i <= n LOOP
    j := i;                              -- [i..j] is one linked group
    IF coalesce(p_links[i], 0) <> 0 THEN
      WHILE j < n AND p_links[j + 1] = p_links[i] LOOP j := j + 1; END LOOP;
    END IF;
    IF j > i THEN
      s_posted := d_posted; s_held := d_held; s_states := hold_states; s_left := hold_left;
    END IF;
    FOR k IN i..j LOOP
      IF p_ids[k] IS NULL OR p_kinds[k] IS NULL OR (CASE p_actions[k]
           WHEN 'transfer' THEN p_holds[k] IS NOT NULL
           WHEN 'hold' THEN (p_holds[k], p_credits[k]) IS DISTINCT FROM (NULL::uuid, NULL::bigint)
           WHEN 'post' THEN p_debits[k] IS NOT NULL
           WHEN 'void' THEN (p_debits[k], p_credits[k], p_amounts[k]) IS DISTINCT FROM (NULL::bigint, NULL::bigint, NULL::numeric)
           ELSE true END) OR (p_timeouts[k] IS NOT NULL AND p_actions[k] <> 'hold') THEN
        RAISE EXCEPTION 'item % (%) lacks its id or kind, or has fields of another action', k, p_actions[k]
          USING ERRCODE = 'invalid_parameter_value';
      END IF;
      code := NULL; a := array_position(acc_ids, debits[k]); c := array_position(acc_ids, p_credits[k]);
      h := array_position(hold_ids, p_holds[k]);
      IF known IS NOT NULL AND p_ids[k] = ANY (known) THEN
        SELECT ledger_compare(
                 ledger_facts(CASE WHEN t.credit_id IS NOT NULL AND t.hold IS NOT NULL THEN 'post'
                                   WHEN t.credit_id IS NOT NULL THEN 'transfer'
                                   WHEN t.hold IS NOT NULL THEN 'void' ELSE 'hold' END,
                              t.hold, t.debit_id, t.credit_id, t.amount, t.kind, t.reference,
                              extract(epoch FROM t.expires_at - t.created_at)::int),
                 ledger_facts(p_actions[k], p_holds[k], debits[k], p_credits[k],
                              CASE p_actions[k] WHEN 'void' THEN hold_amounts[h] ELSE p_amounts[k] END, p_kinds[k], p_refs[k],
                              p_timeouts[k]))
          INTO code FROM trading_transfer t WHERE t.id = p_ids[k];
      ELSIF k > 1 AND p_ids[k] = ANY (p_ids[1:k - 1]) THEN   -- a repeat within the batch: only what was applied counts
        FOR e IN 1..k - 1 LOOP
          IF p_ids[e] = p_ids[k] AND codes[e] = 'ok' THEN
            code := ledger_compare(
              ledger_facts(p_actions[e], p_holds[e], debits[e], p_credits[e], p_amounts[e], p_kinds[e], p_refs[e], p_timeouts[e]),
              ledger_facts(p_actions[k], p_holds[k], debits[k], p_credits[k], p_amounts[k], p_kinds[k], p_refs[k], p_timeouts[k]));
          END IF;
        END LOOP;
      END IF;
      IF code IS NOT NULL THEN NULL;                          -- the id is taken
      ELSIF p_actions[k] IN ('post', 'void') AND h IS NULL THEN code := 'hold_unknown';
      ELSIF p_actions[k] = 'void' THEN
        IF hold_states[h] <> 'pending' THEN code := 'hold_already_' || replace(hold_states[h], 'posting', 'posted');
        ELSE
          hold_states[h] := 'voided'; d_held[a] := d_held[a] - hold_amounts[h]; code := 'ok';
        END IF;
      ELSIF p_amounts[k] IS NULL OR p_amounts[k] <= 0 OR p_amounts[k] = 'NaN' OR p_amounts[k] <> trunc(p_amounts[k]) THEN
        code := 'amount_not_positive';
      ELSIF p_amounts[k] >= 1e38 THEN code := 'amount_too_large';
      ELSIF p_timeouts[k] <= 0 THEN code := 'timeout_not_positive';
      ELSIF a IS NULL OR (c IS NULL AND p_actions[k] <> 'hold') THEN code := 'account_unknown';
      ELSIF a = c THEN code := 'same_account';
      ELSIF p_actions[k] <> 'hold' AND acc_assets[a] <> acc_assets[c] THEN code := 'asset_mismatch';
      ELSIF p_actions[k] = 'post' THEN
        IF hold_states[h] NOT IN ('pending', 'posting') THEN code := 'hold_already_' || hold_states[h];
        ELSIF p_amounts[k] > hold_left[h] THEN code := 'exceeds_hold';
        ELSE
          IF hold_states[h] = 'pending' THEN    -- the first item ends the hold; what is not posted returns
            hold_states[h] := 'posting'; d_held[a] := d_held[a] - hold_amounts[h];
          END IF;
          hold_left[h] := hold_left[h] - p_amounts[k];
          d_posted[a] := d_posted[a] - p_amounts[k]; d_posted[c] := d_posted[c] + p_amounts[k]; code := 'ok';
        END IF;
      ELSIF NOT acc_free[a]
        AND acc_posted[a] + d_posted[a] - acc_held[a] - d_held[a] < p_amounts[k] THEN code := 'insufficient_funds';
      ELSIF p_actions[k] = 'hold' THEN
        d_held[a] := d_held[a] + p_amounts[k]; code := 'ok';
      ELSE
        d_posted[a] := d_posted[a] - p_amounts[k]; d_posted[c] := d_posted[c] + p_amounts[k]; code := 'ok';
      END IF;
      codes[k] := code;
    END LOOP;
    IF j > i AND EXISTS (SELECT 1 FROM unnest(codes[i:j]) x WHERE x NOT IN ('ok', 'exists')) THEN
      d_posted := s_posted; d_held := s_held; hold_states := s_states; hold_left := s_left;
      FOR k IN i..j LOOP
        IF codes[k] = 'ok' OR (codes[k] = 'exists' AND (known IS NULL OR p_ids[k] <> ALL (known)) AND NOT EXISTS (
             SELECT 1 FROM generate_series(1, i - 1) g WHERE p_ids[g] = p_ids[k] AND codes[g] = 'ok')) THEN
          codes[k] := 'linked_failed';
        END IF;
      END LOOP;
    END IF;
    i := j + 1;
  END LOOP;

  INSERT INTO trading_transfer (id, kind, state, debit_id, credit_id, amount, hold, reference, created_at, resolved_at, expires_at)
  SELECT t.id, t.kind, CASE t.action WHEN 'hold' THEN 'pending' WHEN 'void' THEN 'voided' ELSE 'posted' END,
         t.debit, t.credit, coalesce(t.amount, hold_amounts[array_position(hold_ids, t.hold)]), t.hold, t.ref,
         moment, CASE t.action WHEN 'hold' THEN NULL ELSE moment END, moment + t.timeout * interval '1 second'
    FROM unnest(p_ids, p_actions, debits, p_credits, p_amounts, p_holds, p_kinds, p_refs, p_timeouts, codes)
         AS t(id, action, debit, credit, amount, hold, kind, ref, timeout, code)
   WHERE t.code = 'ok' ORDER BY t.id;
  IF array_length(array_remove(p_timeouts, NULL), 1) > 0 THEN
    INSERT INTO trading_holdtimer (hold, due)
    SELECT t.id, moment + t.timeout * interval '1 second' FROM unnest(p_ids, p_timeouts, codes) AS t(id, timeout, code)
     WHERE t.code = 'ok' AND t.timeout IS NOT NULL;
  END IF;
  IF 'transfer' = ANY (p_actions) OR 'post' = ANY (p_actions) THEN
  INSERT INTO trading_entry (transfer_id, account_id, amount, created_at)
  SELECT t.id, leg.account, leg.amount, moment
    FROM unnest(p_ids, p_actions, debits, p_credits, p_amounts, codes)
         WITH ORDINALITY AS t(id, action, debit, credit, amount, code, ord)
    CROSS JOIN LATERAL (VALUES (t.debit, -t.amount), (t.credit, t.amount)) AS leg(account, amount)
   WHERE t.code = 'ok' AND t.action IN ('transfer', 'post') ORDER BY t.ord;
  END IF;
  IF hold_ids IS NOT NULL THEN
    UPDATE trading_transfer t SET state = CASE s.state WHEN 'posting' THEN 'posted' ELSE s.state END, resolved_at = moment
      FROM unnest(hold_ids, hold_states) AS s(id, state)
     WHERE t.id = s.id AND t.state = 'pending' AND s.state IN ('posting', 'voided');
  END IF;
  UPDATE trading_account x SET posted = x.posted + s.posted, held = x.held + s.held
    FROM unnest(acc_ids, d_posted, d_held) AS s(id, posted, held)
   WHERE x.id = s.id AND (s.posted <> 0 OR s.held <> 0);
  RETURN codes;
END $$;

-- The common case of a call, one new transfer or hold, in one statement. False: nothing was done, see `ledger_apply`.
CREATE OR REPLACE FUNCTION ledger_one(
  p_id uuid, p_action text, p_debit bigint, p_credit bigint, p_amount numeric, p_hold uuid, p_kind text, p_ref uuid
) RETURNS boolean LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
DECLARE moment timestamptz := clock_timestamp();
BEGIN
  -- NaN is more than any number.
  IF (p_id IS NOT NULL AND p_kind IS NOT NULL AND p_hold IS NULL AND p_amount > 0 AND p_amount < 1e38
      AND p_amount = trunc(p_amount)) IS NOT TRUE THEN RETURN false; END IF;
  IF p_action = 'transfer' AND p_debit <> p_credit THEN
    WITH side AS MATERIALIZED (
      SELECT id, posted, held, overdraft, asset_id FROM trading_account
       WHERE id IN (p_debit, p_credit) ORDER BY id FOR NO KEY UPDATE),
    made AS (
      INSERT INTO trading_transfer (id, kind, state, debit_id, credit_id, amount, reference, created_at, resolved_at)
      SELECT p_id, p_kind, 'posted', p_debit, p_credit, p_amount, p_ref, moment, moment FROM side d, side c
       WHERE d.id = p_debit AND c.id = p_credit AND d.asset_id = c.asset_id
         AND (d.overdraft OR d.posted - d.held >= p_amount)
      ON CONFLICT (id) DO NOTHING RETURNING id),
    legs AS (
      INSERT INTO trading_entry (transfer_id, account_id, amount, created_at)
      SELECT p_id, leg.account, leg.amount, moment
        FROM made, (VALUES (p_debit, -p_amount), (p_credit, p_amount)) AS leg(account, amount))
    UPDATE trading_account x SET posted = x.posted + CASE x.id WHEN p_debit THEN -p_amount ELSE p_amount END
      FROM made WHERE x.id IN (p_debit, p_credit);
    RETURN FOUND;
  ELSIF p_action = 'hold' AND p_credit IS NULL THEN
    WITH side AS MATERIALIZED (SELECT id, posted, held, overdraft FROM trading_account WHERE id = p_debit FOR NO KEY UPDATE),
    made AS (
      INSERT INTO trading_transfer (id, kind, state, debit_id, amount, reference, created_at)
      SELECT p_id, p_kind, 'pending', p_debit, p_amount, p_ref, moment FROM side
       WHERE overdraft OR posted - held >= p_amount
      ON CONFLICT (id) DO NOTHING RETURNING id)
    UPDATE trading_account x SET held = x.held + p_amount FROM made WHERE x.id = p_debit;
    RETURN FOUND;
  END IF;
  RETURN false;
END $$;

-- Release holds whose time is over, by database time; how many. A hold that was resolved only loses its timer.
CREATE OR REPLACE FUNCTION ledger_expire(p_most int) RETURNS int LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
  SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE moment timestamptz := clock_timestamp(); timers uuid[]; due uuid[]; expired int;
BEGIN
  SELECT array_agg(hold) INTO timers FROM (
    SELECT hold FROM trading_holdtimer t WHERE t.due <= moment ORDER BY t.due LIMIT p_most FOR UPDATE SKIP LOCKED) x;
  IF timers IS NULL THEN RETURN 0; END IF;
  -- Holds by id, then accounts by id, as `ledger_apply` locks them.
  SELECT array_agg(id) INTO due FROM (
    SELECT id FROM trading_transfer WHERE id = ANY (timers) AND state = 'pending' ORDER BY id FOR UPDATE) x;
  PERFORM 1 FROM trading_account WHERE id IN (SELECT debit_id FROM trading_transfer WHERE id = ANY (due))
    ORDER BY id FOR NO KEY UPDATE;
  INSERT INTO trading_transfer (id, kind, state, debit_id, amount, hold, reference, created_at, resolved_at)
  SELECT uuidv7(), kind, 'expired', debit_id, amount, id, reference, moment, moment FROM trading_transfer WHERE id = ANY (due);
  UPDATE trading_account x SET held = x.held - s.total
    FROM (SELECT debit_id, sum(amount) AS total FROM trading_transfer WHERE id = ANY (due) GROUP BY debit_id) s
   WHERE x.id = s.debit_id;
  UPDATE trading_transfer SET state = 'expired', resolved_at = moment WHERE id = ANY (due);
  GET DIAGNOSTICS expired = ROW_COUNT;
  DELETE FROM trading_holdtimer WHERE hold = ANY (timers);
  RETURN expired;
END $$;

-- What a repeated id says: the same item is `exists`, any other names the first field that differs.
DROP FUNCTION IF EXISTS ledger_facts(text, uuid, bigint, bigint, numeric, text, uuid);
CREATE OR REPLACE FUNCTION ledger_facts(
  action text, hold uuid, debit bigint, credit bigint, amount numeric, kind text, reference uuid, timeout int
) RETURNS text[] LANGUAGE sql IMMUTABLE SET search_path = public, pg_temp AS $$
  SELECT ARRAY[action, hold::text, debit::text, credit::text, trim_scale(amount)::text, kind, reference::text, timeout::text]
$$;

CREATE OR REPLACE FUNCTION ledger_compare(stored text[], given text[]) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = public, pg_temp AS $$
  SELECT coalesce((
    SELECT 'exists_with_different_' || x.field
      FROM unnest(ARRAY['action', 'hold', 'debit', 'credit', 'amount', 'kind', 'reference', 'timeout'], stored, given)
           WITH ORDINALITY AS x(field, old, new, o)
     WHERE x.old IS DISTINCT FROM x.new ORDER BY x.o LIMIT 1), 'exists')
$$;
