-- The ledger's only writer. SECURITY DEFINER with a fixed search_path: the application's role may
-- execute it and has no right of its own to change accounts, transfers or entries.

CREATE OR REPLACE FUNCTION ledger_account(
  p_owner uuid, p_asset text, p_kind text, p_chain text DEFAULT '', p_shard int DEFAULT 0
) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE hit bigint;
BEGIN
  SELECT id INTO hit FROM trading_account
   WHERE owner_id IS NOT DISTINCT FROM p_owner AND asset_id = p_asset AND kind = p_kind
     AND chain = p_chain AND shard = p_shard;
  IF FOUND THEN RETURN hit; END IF;
  INSERT INTO trading_account (owner_id, asset_id, kind, chain, shard, posted, held, overdraft, created_at)
  VALUES (p_owner, p_asset, p_kind, p_chain, p_shard, 0, 0, p_kind = 'external', clock_timestamp())
  ON CONFLICT ON CONSTRAINT account_one_per_kind DO NOTHING;
  SELECT id INTO STRICT hit FROM trading_account
   WHERE owner_id IS NOT DISTINCT FROM p_owner AND asset_id = p_asset AND kind = p_kind
     AND chain = p_chain AND shard = p_shard;
  RETURN hit;
END $$;

-- Applies a batch in order and returns one code per item; one bad item does not sink the others.
-- Actions: transfer (debit -> credit at once), hold (reserve on debit), post (pay `credit` out of
-- `hold`; several items of one hold are its one resolution and the rest returns), void (release `hold`).
-- A linked group (same p_links number, 0 = alone) is applied whole or not at all.
-- Codes: ok, exists, exists_with_different_<field>, insufficient_funds, amount_not_positive,
-- account_unknown, asset_mismatch, same_account, hold_unknown, hold_already_posted,
-- hold_already_voided, exceeds_hold, linked_failed.
-- Locks: holds by id, then accounts by id, always in this order, so that callers cannot deadlock.
CREATE OR REPLACE FUNCTION ledger_apply(
  p_ids uuid[], p_actions text[], p_debits bigint[], p_credits bigint[], p_amounts numeric[],
  p_holds uuid[], p_kinds text[], p_refs uuid[], p_links int[] DEFAULT NULL
) RETURNS text[] LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  n int := coalesce(array_length(p_ids, 1), 0);
  codes text[] := array_fill(NULL::text, ARRAY[greatest(n, 1)]);
  debits bigint[] := p_debits;          -- of a post: the hold's debit account
  moment timestamptz := clock_timestamp();
  acc_ids bigint[]; acc_posted numeric[]; acc_held numeric[]; acc_free boolean[]; acc_assets text[];
  d_posted numeric[]; d_held numeric[];
  hold_ids uuid[]; hold_states text[]; hold_debits bigint[]; hold_amounts numeric[]; hold_left numeric[];
  known uuid[]; s_posted numeric[]; s_held numeric[]; s_states text[]; s_left numeric[];
  i int; j int; k int; a int; c int; h int; code text;
BEGIN
  IF n = 0 THEN RETURN ARRAY[]::text[]; END IF;
  IF p_holds IS NOT NULL AND array_length(array_remove(p_holds, NULL), 1) > 0 THEN
    SELECT array_agg(t.id), array_agg(t.state), array_agg(t.debit_id), array_agg(t.amount)
      INTO hold_ids, hold_states, hold_debits, hold_amounts
      FROM (SELECT id, state, debit_id, amount FROM trading_transfer
             WHERE id = ANY (p_holds) AND credit_id IS NULL ORDER BY id FOR UPDATE) t;
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
    s_posted := d_posted; s_held := d_held; s_states := hold_states; s_left := hold_left;
    FOR k IN i..j LOOP
      code := NULL; a := array_position(acc_ids, debits[k]); c := array_position(acc_ids, p_credits[k]);
      h := array_position(hold_ids, p_holds[k]);
      IF known IS NOT NULL AND p_ids[k] = ANY (known) THEN
        code := ledger_compare(p_ids[k], p_actions[k], debits[k], p_credits[k], p_amounts[k], p_holds[k], p_kinds[k], p_refs[k]);
      ELSIF k > 1 AND p_ids[k] = ANY (p_ids[1:k - 1]) THEN
        code := 'exists_with_different_item';
      ELSIF p_actions[k] IN ('post', 'void') AND h IS NULL THEN code := 'hold_unknown';
      ELSIF p_actions[k] = 'void' THEN
        IF hold_states[h] <> 'pending' THEN code := 'hold_already_' || replace(hold_states[h], 'posting', 'posted');
        ELSE
          hold_states[h] := 'voided'; d_held[a] := d_held[a] - hold_amounts[h]; code := 'ok';
        END IF;
      ELSIF p_amounts[k] IS NULL OR p_amounts[k] <= 0 OR p_amounts[k] <> trunc(p_amounts[k]) THEN
        code := 'amount_not_positive';
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
        IF codes[k] = 'ok' THEN codes[k] := 'linked_failed'; END IF;
      END LOOP;
    END IF;
    i := j + 1;
  END LOOP;

  INSERT INTO trading_transfer (id, kind, state, debit_id, credit_id, amount, hold, reference, created_at, resolved_at)
  SELECT t.id, t.kind, CASE t.action WHEN 'hold' THEN 'pending' ELSE 'posted' END, t.debit,
         CASE t.action WHEN 'hold' THEN NULL ELSE t.credit END, t.amount, t.hold, t.ref, moment,
         CASE t.action WHEN 'hold' THEN NULL ELSE moment END
    FROM unnest(p_ids, p_actions, debits, p_credits, p_amounts, p_holds, p_kinds, p_refs, codes)
         AS t(id, action, debit, credit, amount, hold, kind, ref, code)
   WHERE t.code = 'ok' AND t.action <> 'void';
  INSERT INTO trading_entry (transfer_id, account_id, amount, created_at)
  SELECT t.id, leg.account, leg.amount, moment
    FROM unnest(p_ids, p_actions, debits, p_credits, p_amounts, codes)
         WITH ORDINALITY AS t(id, action, debit, credit, amount, code, ord)
    CROSS JOIN LATERAL (VALUES (t.debit, -t.amount), (t.credit, t.amount)) AS leg(account, amount)
   WHERE t.code = 'ok' AND t.action IN ('transfer', 'post') ORDER BY t.ord;
  IF hold_ids IS NOT NULL THEN
    UPDATE trading_transfer t SET state = CASE s.state WHEN 'posting' THEN 'posted' ELSE s.state END, resolved_at = moment
      FROM unnest(hold_ids, hold_states) AS s(id, state)
     WHERE t.id = s.id AND t.state = 'pending' AND s.state <> 'pending';
  END IF;
  UPDATE trading_account x SET posted = x.posted + s.posted, held = x.held + s.held
    FROM unnest(acc_ids, d_posted, d_held) AS s(id, posted, held)
   WHERE x.id = s.id AND (s.posted <> 0 OR s.held <> 0);
  RETURN codes;
END $$;

-- What a repeated id says: the same item is `exists`, any other names the first field that differs.
CREATE OR REPLACE FUNCTION ledger_compare(
  p_id uuid, p_action text, p_debit bigint, p_credit bigint, p_amount numeric, p_hold uuid, p_kind text, p_ref uuid
) RETURNS text LANGUAGE sql STABLE SECURITY DEFINER SET search_path = public, pg_temp AS $$
  SELECT CASE
    WHEN (p_action = 'hold') <> (t.credit_id IS NULL) THEN 'exists_with_different_action'
    WHEN t.debit_id <> p_debit THEN 'exists_with_different_debit'
    WHEN t.credit_id IS NOT NULL AND t.credit_id IS DISTINCT FROM p_credit THEN 'exists_with_different_credit'
    WHEN t.amount <> p_amount THEN 'exists_with_different_amount'
    WHEN t.hold IS DISTINCT FROM p_hold THEN 'exists_with_different_hold'
    WHEN t.kind <> p_kind THEN 'exists_with_different_kind'
    WHEN t.reference IS DISTINCT FROM p_ref THEN 'exists_with_different_reference'
    ELSE 'exists' END
  FROM trading_transfer t WHERE t.id = p_id
$$;
