-- Escrow of jobs on top of the ledger; called by the SQL of the job states, in the same transaction.

-- Hold p_amounts[i] of p_clients[i] for p_jobs[i]; the payment's id is the hold's id. One code per item.
CREATE OR REPLACE FUNCTION payments_open(
  p_ids uuid[], p_jobs uuid[], p_clients uuid[], p_amounts numeric[], p_asset text
) RETURNS text[] LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
  SET plan_cache_mode = force_generic_plan AS $$
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
-- A payment that is resolved already is left as it is. Returns how many were resolved.
CREATE OR REPLACE FUNCTION payments_settle(
  p_jobs uuid[], p_providers uuid[], p_totals numeric[], p_fees numeric[]
) RETURNS int LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
  SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  ids uuid[] := '{}'; actions text[] := '{}'; credits bigint[] := '{}'; amounts numeric[] := '{}';
  holds uuid[] := '{}'; kinds text[] := '{}'; refs uuid[] := '{}'; links int[] := '{}';
  codes text[]; p record; resolved int := 0; bad text; maturing interval; shard int := pg_backend_pid() % 16;
BEGIN
  SELECT value * interval '1 second' INTO maturing FROM accounts_parameter WHERE name = 'maturing_seconds';
  FOR p IN
    -- Locked by id; then by provider, so that two calls make the accounts they lack in the same order.
    SELECT * FROM (
      SELECT y.id, y.job, y.asset, y.held, x.provider, x.total, x.fee
        FROM unnest(p_jobs, p_providers, p_totals, p_fees) AS x(job, provider, total, fee)
        JOIN trading_payment y ON y.job = x.job AND y.state = 'escrowed'
       ORDER BY y.id FOR UPDATE OF y) z ORDER BY z.asset, z.provider, z.id
  LOOP
    resolved := resolved + 1;
    IF (p.total >= 0 AND p.fee >= 0 AND p.fee <= p.total AND p.total <= p.held
        AND (p.total = 0 OR p.provider IS NOT NULL)) IS NOT TRUE THEN
      RAISE EXCEPTION 'payment % cannot release % with fee % out of % to %', p.id, p.total, p.fee, p.held, p.provider
        USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    IF p.total = 0 THEN
      ids := ids || gen_random_uuid(); actions := actions || 'void'::text; credits := credits || NULL::bigint;
      amounts := amounts || NULL::numeric; holds := holds || p.id; kinds := kinds || 'job.refund'::text;
      refs := refs || p.job; links := links || resolved;
    END IF;
    IF p.total > p.fee THEN
      ids := ids || gen_random_uuid(); actions := actions || 'post'::text;
      credits := credits || ledger_account(p.provider, p.asset, 'maturing');
      amounts := amounts || (p.total - p.fee); holds := holds || p.id; kinds := kinds || 'job.earning'::text;
      refs := refs || p.job; links := links || resolved;
    END IF;
    IF p.fee > 0 THEN
      ids := ids || gen_random_uuid(); actions := actions || 'post'::text;
      credits := credits || ledger_account(NULL, p.asset, 'fees', '', shard);
      amounts := amounts || p.fee; holds := holds || p.id; kinds := kinds || 'job.fee'::text;
      refs := refs || p.job; links := links || resolved;
    END IF;
    UPDATE trading_payment SET
      state = CASE WHEN p.total = 0 THEN 'refunded' WHEN p.total = p.held THEN 'released' ELSE 'partially_released' END,
      provider_id = CASE WHEN p.total > 0 THEN p.provider END,
      released = p.total - p.fee, fee = p.fee, refunded = p.held - p.total, resolved_at = clock_timestamp(),
      matures_at = CASE WHEN p.total > p.fee THEN clock_timestamp() + maturing END
     WHERE id = p.id AND state = 'escrowed';
    IF NOT FOUND THEN
      RAISE EXCEPTION 'job % is settled twice in one call', p.job USING ERRCODE = 'integrity_constraint_violation';
    END IF;
  END LOOP;
  IF resolved = 0 THEN RETURN 0; END IF;
  codes := ledger_apply(ids, actions, array_fill(NULL::bigint, ARRAY[array_length(ids, 1)]), credits, amounts, holds, kinds, refs, links);
  SELECT x INTO bad FROM unnest(codes) x WHERE x <> 'ok' LIMIT 1;
  IF bad IS NOT NULL THEN
    RAISE EXCEPTION 'the ledger refused a settlement: %', bad USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  RETURN resolved;
END $$;

-- Move earnings past their dispute window from maturing to available: one transfer per provider.
CREATE OR REPLACE FUNCTION payments_mature(p_limit int) RETURNS int
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
  SET plan_cache_mode = force_generic_plan AS $$
DECLARE due uuid[]; codes text[]; bad text;
BEGIN
  SELECT array_agg(id) INTO due FROM (
    SELECT id FROM trading_payment WHERE matured_at IS NULL AND matures_at <= clock_timestamp()
     ORDER BY matures_at LIMIT p_limit FOR UPDATE SKIP LOCKED) x;
  IF due IS NULL THEN RETURN 0; END IF;
  SELECT ledger_apply(array_agg(gen_random_uuid()), array_agg('transfer'::text), array_agg(s.source), array_agg(s.target),
                      array_agg(s.amount), array_agg(NULL::uuid), array_agg('earning.matured'::text), array_agg(NULL::uuid))
    INTO codes
    FROM (SELECT ledger_account(g.provider_id, g.asset, 'maturing') AS source,
                 ledger_account(g.provider_id, g.asset, 'available') AS target, g.amount
            FROM (SELECT provider_id, asset, sum(released) AS amount FROM trading_payment
                   WHERE id = ANY (due) GROUP BY asset, provider_id ORDER BY asset, provider_id) g) s;
  SELECT x INTO bad FROM unnest(codes) x WHERE x <> 'ok' LIMIT 1;
  IF bad IS NOT NULL THEN
    RAISE EXCEPTION 'the ledger refused to mature earnings: %', bad USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  UPDATE trading_payment SET matured_at = clock_timestamp() WHERE id = ANY (due);
  RETURN array_length(due, 1);
END $$;
