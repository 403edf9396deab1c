-- Escrow of jobs on top of the ledger; called by the SQL of the job states, in the same transaction.
-- Every row is found by an index, also by a session that planned while the tables were still empty.

-- Hold p_amounts[i] of p_clients[i] for p_jobs[i]; the payment's id is the hold's id. One code per item.
CREATE OR REPLACE FUNCTION payments_open(
  p_ids uuid[], p_jobs uuid[], p_clients uuid[], p_amounts numeric[], p_asset text
) RETURNS text[] LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
  SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
  n int := array_length(p_ids, 1);
  codes text[];
BEGIN
  -- A client without an account has no money; his refusal writes nothing, not even an account.
  codes := ledger_apply(
    p_ids, array_fill('hold'::text, ARRAY[n]),
    ARRAY(SELECT a.id FROM unnest(p_clients) WITH ORDINALITY AS x(client, o)
            LEFT JOIN trading_account a ON a.owner_id = x.client AND a.asset_id = p_asset AND a.kind = 'available'
             AND a.chain = '' AND a.shard = 0 ORDER BY o),
    array_fill(NULL::bigint, ARRAY[n]), p_amounts, array_fill(NULL::uuid, ARRAY[n]),
    array_fill('job.hold'::text, ARRAY[n]), p_jobs);
  INSERT INTO trading_payment (id, job, client_id, asset, state, held, released, fee, refunded, created_at)
  SELECT x.id, x.job, x.client, p_asset, 'escrowed', x.amount, 0, 0, 0, clock_timestamp()
    FROM unnest(p_ids, p_jobs, p_clients, p_amounts, codes) AS x(id, job, client, amount, code)
   WHERE x.code = 'ok';
  RETURN array_replace(codes, 'account_unknown', 'insufficient_funds');
END $$;

-- Resolve the escrow of final jobs: `total` is earned by the provider (fee inside it), the rest returns.
-- p_expired[i]: the job's time in the queue ended, so that a payment that returns whole is called expired.
-- A payment that is resolved already is left as it is. Returns how many were resolved.
CREATE OR REPLACE FUNCTION payments_settle(
  p_jobs uuid[], p_providers uuid[], p_totals numeric[], p_fees numeric[], p_expired boolean[] DEFAULT NULL
) RETURNS int LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
  SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
  moment timestamptz := clock_timestamp(); shard int := pg_backend_pid() % 16;
  ids uuid[]; actions text[]; credits bigint[]; amounts numeric[]; holds uuid[]; kinds text[]; refs uuid[]; links int[];
  codes text[]; resolved int; bad text;
BEGIN
  IF array_length(p_jobs, 1) > 1 THEN   -- one at a time needs no order
    PERFORM 1 FROM trading_payment WHERE job = ANY (p_jobs) AND state = 'escrowed' ORDER BY id FOR UPDATE;
    SELECT x.job INTO bad FROM unnest(p_jobs) x(job) JOIN trading_payment y ON y.job = x.job AND y.state = 'escrowed'
     GROUP BY x.job HAVING count(*) > 1 LIMIT 1;
    IF FOUND THEN
      RAISE EXCEPTION 'job % is settled twice in one call', bad USING ERRCODE = 'integrity_constraint_violation';
    END IF;
  END IF;
  WITH done AS (
    UPDATE trading_payment y SET
      state = CASE WHEN x.total = 0 THEN CASE WHEN x.expired THEN 'expired' ELSE 'refunded' END
                   WHEN x.total = y.held THEN 'released' ELSE 'partially_released' END,
      provider_id = CASE WHEN x.total > 0 THEN x.provider END,
      released = x.total - x.fee, fee = x.fee, refunded = y.held - x.total, resolved_at = moment,
      matures_at = CASE WHEN x.total > x.fee
                        THEN moment + (SELECT value FROM accounts_parameter WHERE name = 'maturing_seconds') * interval '1 second' END
      FROM unnest(p_jobs, p_providers, p_totals, p_fees, p_expired) AS x(job, provider, total, fee, expired)
     WHERE y.job = x.job AND y.state = 'escrowed' AND trading_splits(y.id, y.held, x.total, x.fee, x.provider)
    RETURNING y.id, y.job, y.asset, x.provider, x.total, x.fee),
  ordered AS (SELECT d.*, row_number() OVER (ORDER BY d.asset, d.provider, d.id) AS nth FROM done d),
  -- Sorted before the accounts are looked up, so that two calls make the ones they lack in the same order.
  leg AS (
    SELECT o.*, v.* FROM ordered o CROSS JOIN LATERAL (VALUES
      (1, 'void', 'job.refund', NULL::numeric, o.total = 0),
      (2, 'post', 'job.earning', o.total - o.fee, o.total > o.fee),
      (3, 'post', 'job.fee', o.fee, o.fee > 0)) AS v(step, action, kind, amount, wanted)
     WHERE v.wanted ORDER BY o.nth, v.step)
  SELECT array_agg(uuidv7()), array_agg(action), array_agg(amount), array_agg(id), array_agg(kind), array_agg(job),
         array_agg(nth::int), max(nth),
         array_agg(CASE step WHEN 2 THEN ledger_account(provider, asset, 'maturing')
                             WHEN 3 THEN ledger_account(NULL, asset, 'fees', '', shard) END)
    INTO ids, actions, amounts, holds, kinds, refs, links, resolved, credits FROM leg;
  IF resolved IS NULL THEN RETURN 0; END IF;
  codes := ledger_apply(ids, actions, array_fill(NULL::bigint, ARRAY[array_length(ids, 1)]), credits, amounts, holds, kinds, refs, links);
  bad := (array_remove(codes, 'ok'))[1];
  IF bad IS NOT NULL THEN
    RAISE EXCEPTION 'the ledger refused a settlement: %', bad USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN resolved;
END $$;

-- True, or an exception: a payment is split into an earning with its fee inside, and a refund.
CREATE OR REPLACE FUNCTION trading_splits(p_id uuid, p_held numeric, p_total numeric, p_fee numeric, p_provider uuid)
RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
  IF (p_total >= 0 AND p_fee >= 0 AND p_fee <= p_total AND p_total <= p_held
      AND (p_total = 0 OR p_provider IS NOT NULL)) IS NOT TRUE THEN
    RAISE EXCEPTION 'payment % cannot release % with fee % out of % to %', p_id, p_total, p_fee, p_held, p_provider
      USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN true;
END $$;

-- Move earnings past their dispute window from maturing to available: one transfer per provider.
CREATE OR REPLACE FUNCTION payments_mature(p_limit int) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
  SET plan_cache_mode = force_generic_plan AS $$
DECLARE due uuid[];
BEGIN
  SELECT array_agg(id) INTO due FROM (
    SELECT id FROM trading_payment WHERE matured_at IS NULL AND matures_at <= clock_timestamp()
     ORDER BY matures_at LIMIT p_limit FOR UPDATE SKIP LOCKED) x;
  IF due IS NULL THEN RETURN 0; END IF;
  PERFORM payments_move_matured(due);
  RETURN array_length(due, 1);
END $$;

-- The same for payments that the caller has locked and knows to be maturing.
CREATE OR REPLACE FUNCTION payments_move_matured(p_due uuid[]) RETURNS void LANGUAGE plpgsql
  SET plan_cache_mode = force_generic_plan AS $$
DECLARE codes text[]; bad text;
BEGIN
  SELECT ledger_apply(array_agg(uuidv7()), array_agg('transfer'::text), array_agg(s.source), array_agg(s.target),
                      array_agg(s.amount), array_agg(NULL::uuid), array_agg('earning.matured'::text), array_agg(NULL::uuid))
    INTO codes
    FROM (SELECT ledger_account(g.provider_id, g.asset, 'maturing') AS source,
                 ledger_account(g.provider_id, g.asset, 'available') AS target, g.amount
            FROM (SELECT provider_id, asset, sum(released) AS amount FROM trading_payment
                   WHERE id = ANY (p_due) GROUP BY asset, provider_id ORDER BY asset, provider_id) g) s;
  SELECT x INTO bad FROM unnest(codes) x WHERE x <> 'ok' LIMIT 1;
  IF bad IS NOT NULL THEN
    RAISE EXCEPTION 'the ledger refused to mature earnings: %', bad USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  UPDATE trading_payment SET matured_at = clock_timestamp() WHERE id = ANY (p_due);
END $$;
