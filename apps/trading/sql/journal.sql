-- The hash chain over the ledger: blocks of all that was committed between two transaction ids.
-- A row carries the id of the transaction that wrote it. What lies below the oldest transaction that still
-- runs is complete for ever, so a block never misses a row and writers never wait for the sealer.
-- After a restore into another cluster start above the dump's ids (pg_resetwal -x), or new rows fall into old blocks.

-- The facts of the transactions from `p_from` to below `p_upto`, in one plain form whatever the session's settings are.
CREATE OR REPLACE FUNCTION journal_lines(p_from bigint, p_upto bigint)
RETURNS TABLE (xact bigint, part int, key text, line text) LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT t.xact, 1, t.id::text,
         concat_ws('|', 'transfer', t.id, t.kind, t.debit_id, coalesce(t.credit_id::text, '-'), t.amount,
                   coalesce(t.hold::text, '-'), coalesce(t.reference::text, '-'), extract(epoch FROM t.created_at),
                   extract(epoch FROM t.expires_at))   -- left out where there is none
    FROM trading_transfer t WHERE t.xact >= p_from AND t.xact < p_upto
  UNION ALL
  SELECT e.xact, 2, lpad(e.id::text, 20, '0'),
         concat_ws('|', 'entry', e.id, e.transfer_id, e.account_id, e.amount, extract(epoch FROM e.created_at))
    FROM trading_entry e WHERE e.xact >= p_from AND e.xact < p_upto
  UNION ALL   -- and the heads of the audit log, so that one anchored head covers both (protocols 10)
  SELECT a.xact, 3, lpad(a.number::text, 20, '0'), concat_ws('|', 'audit', a.number, encode(a.head, 'hex'))
    FROM accounts_auditevent a WHERE a.xact >= p_from AND a.xact < p_upto
$$;

CREATE OR REPLACE FUNCTION journal_head(p_number bigint, p_previous bytea, p_upto bigint, p_digest bytea) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT sha256('aitbc.journal'::bytea || int8send(p_number) || p_previous || int8send(p_upto) || p_digest)
$$;

-- Seal what is complete into the next block: its number, or NULL when there is nothing new. Of a backlog, whole
-- transactions up to the one with the `p_most`-th transfer, so that one call stays short.
CREATE OR REPLACE FUNCTION journal_seal(p_most int) RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE
  last trading_journalblock; nth bigint; horizon bigint; n int; d bytea;
BEGIN
  IF NOT pg_try_advisory_xact_lock(hashtextextended('trading.journal', 0)) THEN RETURN NULL; END IF;
  SELECT * INTO last FROM trading_journalblock ORDER BY number DESC LIMIT 1;
  horizon := pg_snapshot_xmin(pg_current_snapshot())::text::bigint;
  SELECT CASE count(*) WHEN p_most THEN max(xact) + 1 ELSE horizon END INTO horizon
    FROM (SELECT xact FROM trading_transfer WHERE xact >= coalesce(last.upto, 0) AND xact < horizon
           ORDER BY xact LIMIT p_most) x;
  SELECT count(*), sha256(convert_to(string_agg(line, E'\n' ORDER BY part, key), 'UTF8')) INTO n, d
    FROM journal_lines(coalesce(last.upto, 0), horizon);
  IF n = 0 THEN RETURN NULL; END IF;
  nth := coalesce(last.number, 0) + 1;
  INSERT INTO trading_journalblock (number, upto, lines, digest, head, sealed_at)
  VALUES (nth, horizon, n, d, journal_head(nth, coalesce(last.head, ''::bytea), horizon, d), clock_timestamp());
  RETURN nth;
END $$;

CREATE OR REPLACE TRIGGER journal_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON trading_journalblock
  FOR EACH STATEMENT EXECUTE FUNCTION trading_refuse_change();
