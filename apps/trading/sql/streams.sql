-- Prepaid streams: depositors fill an escrow account, payees are paid out of it by the second.
-- Accrual is counted in millionths of a unit, rate * microseconds of the database's clock, and what is less than a unit
-- is carried: however often a stream is settled, each payee gets the same. Funds / rate is the deadline, kept in
-- `ends_at`; nothing accrues after it. At the deadline the funds are divided exactly, pro rata of what accrued, the units
-- that remain to the largest fractions. The fee is ceil(all that a payee earned * bps / 10000), as transfers of their own.
-- Money is spent in the order it was deposited: what a closed stream has left returns to the last depositor first.
-- Rows are found by an index, also by a session that planned while the tables were still empty.
-- Lock order: the stream, then accounts by id in one call of the ledger per transaction.

CREATE OR REPLACE FUNCTION stream_funds(s trading_stream) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
  SELECT s.deposited - s.paid - s.fees - s.returned
$$;

CREATE OR REPLACE FUNCTION stream_micros(p_from timestamptz, p_upto timestamptz) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
  SELECT trunc(extract(epoch FROM p_upto - p_from) * 1000000)
$$;

-- What each payee is owed at p_moment, and is not paid yet.
CREATE OR REPLACE FUNCTION stream_shares(s trading_stream, p_moment timestamptz)
RETURNS TABLE (payee uuid, gross numeric, fee numeric, carry numeric) LANGUAGE sql STABLE AS $$
  WITH now AS (SELECT coalesce(s.ends_at <= p_moment, false) AS over, stream_funds(s) AS funds,
                      stream_micros(s.settled_at, least(p_moment, s.ends_at)) AS micros),
  owed AS (   -- in millionths; when all is spent, in 1 / (1000000 * rate), so that the division stays exact
    SELECT p.payee_id, p.paid + p.fee AS before, p.fee AS charged, CASE WHEN n.over THEN s.rate * 1000000 ELSE 1000000 END AS unit,
           CASE WHEN n.over THEN p.carry * s.rate + p.rate * (n.funds * 1000000 - sum(p.carry) OVER ())
                ELSE p.carry + p.rate * n.micros END AS amount, n.over, n.funds
      FROM trading_stream_payee p CROSS JOIN now n WHERE p.stream_id = s.id),
  cut AS (
    SELECT o.*, CASE WHEN over AND row_number() OVER (ORDER BY amount % unit DESC, payee_id) <= funds - sum(div(amount, unit)) OVER ()
                     THEN 1 ELSE 0 END + div(amount, unit) AS whole FROM owed o)
  SELECT payee_id, whole, div((before + whole) * s.fee_bps + 9999, 10000) - charged, CASE WHEN over THEN 0 ELSE amount % unit END
    FROM cut
$$;

-- Pay what has accrued; with p_state, the stream is over, and what is left returns to its depositors.
-- p_keep_bps of what is left then is earned too, by the one payee of a kept stream.
DROP FUNCTION IF EXISTS stream_pay(trading_stream, timestamptz, text);
CREATE OR REPLACE FUNCTION stream_pay(s trading_stream, p_moment timestamptz, p_state text, p_keep_bps int DEFAULT 0)
RETURNS void LANGUAGE plpgsql
  SET plan_cache_mode = force_generic_plan AS $$
DECLARE
  ended boolean := coalesce(s.ends_at <= p_moment, false); payees uuid[]; nets numeric[]; earned numeric; charged numeric;
  backs uuid[]; amounts numeric[]; left_over numeric := 0; n int; bad text;
BEGIN
  WITH share AS (
    SELECT x.payee, x.carry, x.gross + y.kept AS gross,
           CASE WHEN y.kept = 0 THEN x.fee ELSE div((p.paid + p.fee + x.gross + y.kept) * s.fee_bps + 9999, 10000) - p.fee END AS fee
      FROM stream_shares(s, p_moment) x JOIN trading_stream_payee p ON p.stream_id = s.id AND p.payee_id = x.payee
     CROSS JOIN LATERAL (SELECT CASE WHEN p_keep_bps = 0 OR ended THEN 0
                                     ELSE div((stream_funds(s) - x.gross) * p_keep_bps, 10000) END AS kept) y),
  paid AS (
    UPDATE trading_stream_payee p SET paid = p.paid + x.gross - x.fee, fee = p.fee + x.fee, carry = x.carry
      FROM share x WHERE p.stream_id = s.id AND p.payee_id = x.payee RETURNING x.payee, x.gross, x.fee)
  SELECT array_agg(payee ORDER BY payee), array_agg(gross - fee ORDER BY payee), coalesce(sum(gross - fee), 0), coalesce(sum(fee), 0)
    INTO payees, nets, earned, charged FROM paid;
  IF p_state IS NOT NULL AND NOT ended THEN
    left_over := stream_funds(s) - earned - charged;
    WITH spent AS (
      SELECT number, least(amount, left_over - sum(amount) OVER (ORDER BY number DESC) + amount) AS back
        FROM trading_stream_deposit WHERE stream_id = s.id),
    returned AS (
      UPDATE trading_stream_deposit d SET returned = x.back FROM spent x
       WHERE d.stream_id = s.id AND d.number = x.number AND x.back > 0 RETURNING d.depositor_id, x.back),
    summed AS (SELECT depositor_id, sum(back) AS back FROM returned GROUP BY depositor_id)
    SELECT array_agg(depositor_id ORDER BY depositor_id), array_agg(back ORDER BY depositor_id) INTO backs, amounts FROM summed;
  END IF;
  n := coalesce(array_length(payees, 1), 0) + coalesce(array_length(backs, 1), 0);
  bad := trading_move(
    array_fill(s.account_id, ARRAY[n + 1]),
    ARRAY(SELECT ledger_account(x, s.asset, 'available') FROM unnest(payees || backs) WITH ORDINALITY AS x(x, o) ORDER BY o)
      || ledger_account(NULL, s.asset, 'fees', '', pg_backend_pid() % 16),
    nets || amounts || charged,
    array_fill('stream.earning'::text, ARRAY[coalesce(array_length(payees, 1), 0)])
      || array_fill('stream.return'::text, ARRAY[coalesce(array_length(backs, 1), 0)]) || 'stream.fee'::text, s.id);
  IF bad IS NOT NULL THEN
    RAISE EXCEPTION 'the ledger refused to pay stream %: %', s.id, bad USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  UPDATE trading_stream SET paid = paid + earned, fees = fees + charged, returned = returned + left_over,
         settled_at = least(p_moment, ends_at), due_at = CASE WHEN p_state IS NULL AND NOT ended THEN due_at END,
         state = CASE WHEN ended THEN 'ended' ELSE coalesce(p_state, state) END,
         closed_at = CASE WHEN p_state IS NOT NULL OR ended THEN p_moment END
   WHERE id = s.id;
  IF p_state IS NOT NULL OR ended THEN
    PERFORM stream_announce(CASE WHEN ended THEN 'ended' ELSE p_state END, s.id);
  END IF;
END $$;

CREATE OR REPLACE FUNCTION stream_announce(p_what text, p_stream uuid) RETURNS void LANGUAGE sql AS $$
  SELECT trading_announce('trading.stream_' || p_what, 'stream:' || s.id, jsonb_build_object(
    'stream', s.id, 'owner', s.owner_id, 'state', s.state, 'ends_at', s.ends_at, 'funds', stream_funds(s)::text, 'rate', s.rate::text))
    FROM trading_stream s WHERE s.id = p_stream
$$;

-- Count the rate and the deadline anew from what the stream holds since `settled_at`, and when the timer must look.
-- The alert is armed again once the end has moved away from it.
CREATE OR REPLACE FUNCTION stream_schedule(p_stream uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE s trading_stream; total numeric; carried numeric; micros numeric; ending timestamptz; alert timestamptz; warned timestamptz;
BEGIN
  SELECT * INTO s FROM trading_stream WHERE id = p_stream;
  SELECT sum(p.rate), sum(p.carry) INTO total, carried FROM trading_stream_payee p WHERE stream_id = p_stream;
  IF total > 0 THEN
    micros := div(stream_funds(s) * 1000000 - carried + total - 1, total);
    IF micros > 3155760000000000 THEN
      PERFORM trading_refuse(422, 'stream.too_long', 'a stream lasts at most a hundred years', 'deposit');
    END IF;
    ending := s.settled_at + micros * interval '1 microsecond';
    alert := ending - s.warn_seconds * interval '1 second';
    warned := CASE WHEN alert <= clock_timestamp() THEN s.warned_at END;
  END IF;
  UPDATE trading_stream SET rate = total, ends_at = ending, warned_at = warned, due_at = CASE WHEN warned IS NULL THEN alert ELSE ending END
   WHERE id = p_stream;
END $$;

-- Lock an open stream whose funds still last. p_owner NULL: the platform acts.
CREATE OR REPLACE FUNCTION stream_running(p_owner uuid, p_stream uuid) RETURNS trading_stream LANGUAGE plpgsql AS $$
DECLARE s trading_stream;
BEGIN
  PERFORM stream_shown(p_owner, p_stream);
  SELECT * INTO s FROM trading_stream WHERE id = p_stream FOR UPDATE;
  IF s.owner_id <> p_owner THEN
    PERFORM trading_refuse(403, 'stream.owner_only', 'only its owner can do this to a stream');
  ELSIF p_owner IS NOT NULL THEN
    PERFORM stream_require_free(s);
  END IF;
  PERFORM stream_require_running(s);
  RETURN s;
END $$;

CREATE OR REPLACE FUNCTION stream_require_running(s trading_stream) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF s.state <> 'open' THEN
    PERFORM trading_refuse(409, 'stream.' || s.state, 'this stream is over');
  ELSIF s.ends_at <= clock_timestamp() THEN
    PERFORM trading_refuse(409, 'stream.ended', 'the funds of this stream are spent');
  END IF;
END $$;

CREATE OR REPLACE FUNCTION stream_require_free(s trading_stream) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF s.keeper IS NOT NULL THEN
    PERFORM trading_refuse(409, 'stream.kept', 'this stream pays an order: act on the order');
  END IF;
END $$;

-- A new stream with its first deposit. p_keeper: what it pays for, which alone then changes and ends it, at a fee agreed before. p_rates[i]: units per second for p_payees[i]. p_warn: seconds before the end at which
-- it is announced, and at which p_topup (0: nothing) is taken from the owner again, up to p_cap in all.
-- Each open stream has an escrow account to itself; that of a stream that is over serves its owner's next one.
DROP FUNCTION IF EXISTS stream_open(uuid, uuid, uuid[], numeric[], numeric, int, numeric, numeric, text);
CREATE OR REPLACE FUNCTION stream_open(
  p_id uuid, p_owner uuid, p_payees uuid[], p_rates numeric[], p_deposit numeric, p_warn int, p_topup numeric, p_cap numeric,
  p_asset text DEFAULT 'AIT', p_fee_bps int DEFAULT NULL, p_keeper uuid DEFAULT NULL
) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE free int;
BEGIN
  IF EXISTS (SELECT FROM unnest(p_payees) x WHERE x = p_owner OR NOT EXISTS (SELECT FROM accounts_user u WHERE u.id = x AND u.is_active)) THEN
    PERFORM trading_refuse(422, 'stream.payee', 'pay other users of this platform', 'payees');
  ELSIF (SELECT count(DISTINCT x) <> count(*) FROM unnest(p_payees) x) THEN
    PERFORM trading_refuse(422, 'stream.payee', 'name each payee once', 'payees');
  ELSIF EXISTS (SELECT FROM unnest(p_rates) x WHERE (x BETWEEN 1 AND 1e36 AND x = trunc(x)) IS NOT TRUE) THEN
    PERFORM trading_refuse(422, 'stream.rate', 'a rate is more than nothing', 'payees');
  ELSIF (p_topup >= 0 AND p_cap >= 0) IS NOT TRUE OR (p_topup = 0) <> (p_cap = 0) THEN
    PERFORM trading_refuse(422, 'stream.topup', 'a top-up and its cap are both more than nothing', 'topup');
  ELSIF EXISTS (SELECT FROM trading_stream WHERE id = p_id) THEN
    PERFORM trading_refuse(409, 'stream.exists', 'there is a stream with this id already', 'id');
  END IF;
  PERFORM pg_advisory_xact_lock(hashtextextended(p_owner::text, 12));   -- one at a time chooses an account
  SELECT min(n) INTO free FROM (
    SELECT n FROM generate_series(0, 999) n EXCEPT
    SELECT a.shard FROM trading_account a JOIN trading_stream s ON s.account_id = a.id AND s.state = 'open'
     WHERE a.owner_id = p_owner AND a.asset_id = p_asset AND a.kind = 'escrow' AND a.chain = '') x;
  IF free IS NULL THEN PERFORM trading_refuse(409, 'stream.too_many', 'you have a thousand open streams'); END IF;
  PERFORM ledger_account(x, p_asset, 'available') FROM unnest(p_payees) x ORDER BY x;
  INSERT INTO trading_stream (id, owner_id, asset, account_id, state, rate, fee_bps, deposited, paid, fees, returned, settled_at,
                              warn_seconds, topup_amount, topup_cap, topped_up, created_at, keeper)
  SELECT p_id, p_owner, p_asset, ledger_account(p_owner, p_asset, 'escrow', '', free), 'open', 0, coalesce(p_fee_bps, parameter_value('fee_bps')), 0, 0, 0, 0,
         t, p_warn, p_topup, p_cap, 0, t, p_keeper FROM clock_timestamp() t;
  INSERT INTO trading_stream_payee (stream_id, payee_id, rate, carry, paid, fee)
  SELECT p_id, x.payee, x.rate, 0, 0, 0 FROM unnest(p_payees, p_rates) AS x(payee, rate);
  PERFORM stream_fill(p_id, p_owner, p_deposit, false);
  RETURN stream_shown(p_owner, p_id);
END $$;

-- Money into a locked stream: from now on it lasts longer.
CREATE OR REPLACE FUNCTION stream_fill(p_stream uuid, p_depositor uuid, p_amount numeric, p_automatic boolean) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE bad text; s trading_stream;
BEGIN
  IF (p_amount > 0) IS NOT TRUE THEN PERFORM trading_refuse(422, 'stream.deposit', 'deposit more than nothing', 'deposit'); END IF;
  SELECT * INTO s FROM trading_stream WHERE id = p_stream;
  bad := trading_move(
    ARRAY[(SELECT id FROM trading_account WHERE owner_id = p_depositor AND asset_id = s.asset AND kind = 'available' AND chain = '' AND shard = 0)],
    ARRAY[s.account_id], ARRAY[p_amount], ARRAY['stream.deposit'], p_stream);
  IF bad IN ('insufficient_funds', 'account_unknown') THEN
    PERFORM trading_refuse(409, 'payment.insufficient_funds', 'the available balance does not cover this amount');
  ELSIF bad IS NOT NULL THEN
    RAISE EXCEPTION 'the ledger refused a deposit into %: %', p_stream, bad USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  INSERT INTO trading_stream_deposit (stream_id, number, depositor_id, amount, returned, automatic, created_at)
  SELECT p_stream, count(*) + 1, p_depositor, p_amount, 0, p_automatic, clock_timestamp() FROM trading_stream_deposit WHERE stream_id = p_stream;
  UPDATE trading_stream SET deposited = deposited + p_amount, topped_up = topped_up + CASE WHEN p_automatic THEN p_amount ELSE 0 END
   WHERE id = p_stream;
  PERFORM stream_schedule(p_stream);
END $$;

-- Anybody may pay for a stream that he knows of.
CREATE OR REPLACE FUNCTION stream_deposit(p_user uuid, p_stream uuid, p_amount numeric) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE s trading_stream;
BEGIN
  SELECT * INTO s FROM trading_stream WHERE id = p_stream FOR UPDATE;
  IF NOT FOUND THEN PERFORM trading_refuse(404, 'stream.unknown', 'there is no such stream'); END IF;
  PERFORM stream_require_free(s);
  PERFORM stream_require_running(s);
  PERFORM stream_fill(p_stream, p_user, p_amount, false);
  RETURN stream_shown(p_user, p_stream);
END $$;

-- Its owner's money into a kept stream -> its new end.
CREATE OR REPLACE FUNCTION stream_prolong(p_stream uuid, p_amount numeric) RETURNS timestamptz
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE s trading_stream := stream_running(NULL, p_stream);
BEGIN
  PERFORM stream_fill(p_stream, s.owner_id, p_amount, false);
  RETURN (SELECT ends_at FROM trading_stream WHERE id = p_stream);
END $$;

-- The end of a kept stream: paid until p_moment, which may lie in the past, but not before what is paid already.
CREATE OR REPLACE FUNCTION stream_finish(p_stream uuid, p_moment timestamptz, p_keep_bps int) RETURNS trading_stream
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE s trading_stream;
BEGIN
  SELECT * INTO STRICT s FROM trading_stream WHERE id = p_stream AND keeper IS NOT NULL FOR UPDATE;
  IF s.state = 'open' THEN
    PERFORM stream_pay(s, greatest(p_moment, s.settled_at), 'closed', p_keep_bps);
    SELECT * INTO s FROM trading_stream WHERE id = p_stream;
  END IF;
  RETURN s;
END $$;

-- Add a payee, change his rate, or stop paying him (rate 0); what accrued until now is paid at the old rates.
CREATE OR REPLACE FUNCTION stream_set_rate(p_owner uuid, p_stream uuid, p_payee uuid, p_rate numeric) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE s trading_stream := stream_running(p_owner, p_stream);
BEGIN
  IF (p_rate BETWEEN 0 AND 1e36 AND p_rate = trunc(p_rate)) IS NOT TRUE THEN
    PERFORM trading_refuse(422, 'stream.rate', 'a rate is not less than nothing', 'rate');
  ELSIF p_payee = s.owner_id OR NOT EXISTS (SELECT FROM accounts_user u WHERE u.id = p_payee AND u.is_active) THEN
    PERFORM trading_refuse(422, 'stream.payee', 'pay other users of this platform', 'payee');
  END IF;
  PERFORM ledger_account(p_payee, s.asset, 'available');
  PERFORM stream_pay(s, least(clock_timestamp(), s.ends_at - interval '1 microsecond'), NULL);   -- it was running when locked
  INSERT INTO trading_stream_payee (stream_id, payee_id, rate, carry, paid, fee) VALUES (p_stream, p_payee, p_rate, 0, 0, 0)
  ON CONFLICT (stream_id, payee_id) DO UPDATE SET rate = excluded.rate;
  PERFORM stream_schedule(p_stream);
  RETURN stream_shown(p_owner, p_stream);
END $$;

-- Pay what has accrued until now. One whose funds are spent is left to the timer, which may top it up before it ends it.
CREATE OR REPLACE FUNCTION stream_settle(p_user uuid, p_stream uuid) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE s trading_stream; moment timestamptz;
BEGIN
  PERFORM stream_shown(p_user, p_stream);
  SELECT * INTO s FROM trading_stream WHERE id = p_stream FOR UPDATE;
  moment := clock_timestamp();
  IF s.state = 'open' AND (s.ends_at <= moment) IS NOT TRUE THEN PERFORM stream_pay(s, moment, NULL); END IF;
  RETURN stream_shown(p_user, p_stream);
END $$;

-- The end by its owner's word: what accrued is paid, the rest returns.
CREATE OR REPLACE FUNCTION stream_close(p_owner uuid, p_stream uuid) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE s trading_stream := stream_running(p_owner, p_stream);
BEGIN
  PERFORM stream_pay(s, clock_timestamp(), 'closed');
  RETURN stream_shown(p_owner, p_stream);
END $$;

-- The timer: does what the most overdue stream needs and says what that was; NULL when none is due.
-- A stream that cannot be handled waits a minute, is announced and does not keep the others from ending.
CREATE OR REPLACE FUNCTION stream_next() RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE s trading_stream; done text;
BEGIN
  SELECT * INTO s FROM trading_stream WHERE due_at <= clock_timestamp() ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN RETURN NULL; END IF;
  BEGIN
    done := stream_turn(s, clock_timestamp());
  EXCEPTION WHEN SQLSTATE 'AI409' THEN
    done := 'raced';   -- the owner spent meanwhile what was to fill it: look again
  WHEN integrity_constraint_violation OR data_exception OR SQLSTATE 'AI422' THEN
    RAISE WARNING 'stream %: %', s.id, SQLERRM;
    UPDATE trading_stream SET due_at = clock_timestamp() + interval '1 minute' WHERE id = s.id;
    PERFORM stream_announce('stuck', s.id);
    done := 'stuck';
  END;
  RETURN done;
END $$;

CREATE OR REPLACE FUNCTION stream_turn(s trading_stream, p_moment timestamptz) RETURNS text LANGUAGE plpgsql AS $$
DECLARE amount numeric := stream_topup(s, p_moment);
BEGIN
  IF amount > 0 THEN   -- alone in its transaction, because each call of the ledger locks accounts anew
    PERFORM stream_fill(s.id, s.owner_id, amount, true);
    PERFORM stream_announce('topped_up', s.id);
    RETURN 'topped_up';
  ELSIF s.ends_at <= p_moment THEN
    PERFORM stream_pay(s, p_moment, NULL);
    RETURN 'ended';
  END IF;
  UPDATE trading_stream SET warned_at = p_moment, due_at = ends_at WHERE id = s.id;
  PERFORM stream_announce('low', s.id);
  RETURN 'low';
END $$;

-- Whole top-ups that bring the end a minute beyond the alert, or as many as the cap and the owner's balance allow; the
-- last may be smaller for the cap.
CREATE OR REPLACE FUNCTION stream_topup(s trading_stream, p_moment timestamptz) RETURNS numeric LANGUAGE plpgsql AS $$
DECLARE lacking numeric; most numeric; balance numeric;
BEGIN
  IF s.topup_amount = 0 OR s.topped_up = s.topup_cap THEN RETURN 0; END IF;
  lacking := div(s.rate * (stream_micros(s.settled_at, p_moment) + (s.warn_seconds + 60) * 1000000::numeric) + 1000000 * (
    SELECT count(*) FROM trading_stream_payee WHERE stream_id = s.id), 1000000) + 1 - stream_funds(s);
  most := least(div(lacking + s.topup_amount - 1, s.topup_amount) * s.topup_amount, s.topup_cap - s.topped_up);
  SELECT posted - held INTO balance FROM trading_account
   WHERE owner_id = s.owner_id AND asset_id = s.asset AND kind = 'available' AND chain = '' AND shard = 0;
  RETURN CASE WHEN balance >= most THEN most ELSE coalesce(div(balance, s.topup_amount) * s.topup_amount, 0) END;
END $$;

-- A stream as its owner, its payees and its depositors see it, with what has accrued until now. p_user NULL: the platform.
CREATE OR REPLACE FUNCTION stream_shown(p_user uuid, p_stream uuid) RETURNS text LANGUAGE plpgsql
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE s trading_stream;
BEGIN
  SELECT * INTO s FROM trading_stream t WHERE t.id = p_stream AND (
    p_user IS NULL OR p_user = t.owner_id OR EXISTS (SELECT FROM trading_stream_payee p WHERE p.stream_id = t.id AND p.payee_id = p_user)
    OR EXISTS (SELECT FROM trading_stream_deposit d WHERE d.stream_id = t.id AND d.depositor_id = p_user));
  IF NOT FOUND THEN PERFORM trading_refuse(404, 'stream.unknown', 'there is no such stream'); END IF;
  RETURN stream_document(s)::text;
END $$;

CREATE OR REPLACE FUNCTION stream_document(s trading_stream) RETURNS json LANGUAGE sql VOLATILE AS $$
  WITH now AS (SELECT clock_timestamp() AS moment),
  owed AS (SELECT x.* FROM now CROSS JOIN LATERAL stream_shares(s, now.moment) x WHERE s.state = 'open')
  SELECT json_build_object(
    'id', s.id, 'owner', s.owner_id, 'state', s.state, 'rate', trading_money(s.rate, s.asset),
    'funds', trading_money(stream_funds(s) - coalesce((SELECT sum(gross) FROM owed), 0), s.asset),
    'ends_at', s.ends_at, 'warn_seconds', s.warn_seconds, 'created_at', s.created_at, 'closed_at', s.closed_at,
    'topup', CASE WHEN s.topup_amount > 0 THEN json_build_object('amount', trading_money(s.topup_amount, s.asset),
       'cap', trading_money(s.topup_cap, s.asset)) END,
    'payees', (SELECT json_agg(json_build_object('payee', p.payee_id, 'rate', trading_money(p.rate, s.asset),
         'paid', trading_money(p.paid, s.asset), 'fee', trading_money(p.fee, s.asset),
         'accrued', trading_money(coalesce(o.gross, 0), s.asset)) ORDER BY p.payee_id)
       FROM trading_stream_payee p LEFT JOIN owed o ON o.payee = p.payee_id WHERE p.stream_id = s.id),
    'deposits', (SELECT json_agg(trading_money(d.amount, s.asset)::jsonb || jsonb_build_object('depositor', d.depositor_id,
         'returned', trading_money(d.returned, s.asset)) ORDER BY d.number)
       FROM trading_stream_deposit d WHERE d.stream_id = s.id))
$$;

-- A page of the streams that somebody owns or is paid by, newest first; `next` is the last id when there are more.
CREATE OR REPLACE FUNCTION streams_of(p_user uuid, p_before uuid, p_limit int) RETURNS text LANGUAGE sql VOLATILE
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
  WITH found AS (
    SELECT s.id, s, row_number() OVER (ORDER BY s.id DESC) AS nth FROM trading_stream s
     WHERE s.id IN (SELECT o.id FROM trading_stream o WHERE o.owner_id = p_user
                    UNION SELECT p.stream_id FROM trading_stream_payee p WHERE p.payee_id = p_user)
       AND (p_before IS NULL OR s.id < p_before)
     ORDER BY s.id DESC LIMIT p_limit + 1)
  SELECT json_build_object(
    'items', coalesce((SELECT json_agg(stream_document(s) ORDER BY nth) FROM found WHERE nth <= p_limit), '[]'),
    'next', (SELECT id FROM found WHERE nth = p_limit AND EXISTS (SELECT FROM found WHERE nth > p_limit)))::text
$$;

-- For the audit: a stream's sums are those of its deposits and payees, and the fee is what was agreed of each payee's pay.
CREATE OR REPLACE FUNCTION audit_streams() RETURNS SETOF text LANGUAGE sql STABLE AS $$
  SELECT s.id::text FROM trading_stream s
    LEFT JOIN (SELECT stream_id, sum(amount) AS amount, sum(returned) AS returned FROM trading_stream_deposit GROUP BY stream_id) d
      ON d.stream_id = s.id
    LEFT JOIN (SELECT stream_id, sum(rate) AS rate, sum(paid) AS paid, sum(fee) AS fee FROM trading_stream_payee GROUP BY stream_id) p
      ON p.stream_id = s.id
   WHERE (s.deposited, s.returned, s.rate, s.paid, s.fees) IS DISTINCT FROM (d.amount, d.returned, p.rate, p.paid, p.fee)
      OR EXISTS (SELECT FROM trading_stream_payee x WHERE x.stream_id = s.id
                    AND x.fee <> div((x.paid + x.fee) * s.fee_bps + 9999, 10000))
$$;

-- And what the ledger moved for it.
CREATE OR REPLACE FUNCTION audit_stream_transfers() RETURNS SETOF text LANGUAGE sql STABLE AS $$
  SELECT coalesce(s.id, t.reference)::text FROM trading_stream s FULL JOIN (
    SELECT reference, coalesce(sum(amount) FILTER (WHERE kind = 'stream.deposit'), 0) AS deposited,
           coalesce(sum(amount) FILTER (WHERE kind = 'stream.earning'), 0) AS paid,
           coalesce(sum(amount) FILTER (WHERE kind = 'stream.fee'), 0) AS fees,
           coalesce(sum(amount) FILTER (WHERE kind = 'stream.return'), 0) AS returned
      FROM trading_transfer WHERE kind IN ('stream.deposit', 'stream.earning', 'stream.fee', 'stream.return') GROUP BY reference) t
    ON t.reference = s.id
   WHERE (s.deposited, s.paid, s.fees, s.returned) IS DISTINCT FROM (t.deposited, t.paid, t.fees, t.returned)
$$;

-- The deadline is the last deposit's funds by the rate; the carried fractions lie within the funds.
CREATE OR REPLACE FUNCTION audit_stream_ends() RETURNS SETOF text LANGUAGE sql STABLE AS $$
  SELECT s.id::text FROM trading_stream s JOIN LATERAL (
    SELECT stream_funds(s) * 1000000 - sum(p.carry) AS micros FROM trading_stream_payee p WHERE p.stream_id = s.id) x ON true
   WHERE s.state = 'open' AND (x.micros < 0 OR (s.rate > 0 AND
     stream_micros(s.settled_at, s.ends_at) <> div(x.micros + s.rate - 1, s.rate)))
$$;

-- An escrow account holds the funds of its open stream, and without one nothing.
CREATE OR REPLACE FUNCTION audit_escrow() RETURNS SETOF text LANGUAGE sql STABLE AS $$
  SELECT coalesce(a.id, s.account_id)::text FROM (SELECT id, posted FROM trading_account WHERE kind = 'escrow') a
    FULL JOIN (SELECT account_id, sum(stream_funds(x)) AS funds FROM trading_stream x WHERE state = 'open' GROUP BY account_id) s
      ON s.account_id = a.id
   WHERE coalesce(a.posted, 0) <> coalesce(s.funds, 0)
$$;
