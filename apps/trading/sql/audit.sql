-- The audit log joins the ledger's journal, whose head each settlement anchors (protocols 10): journal_lines of
-- journal.sql, and a line with the head of each audit event.
CREATE OR REPLACE FUNCTION journal_lines(p_from bigint, p_upto bigint)
RETURNS TABLE (xact bigint, part int, key text, line text) LANGUAGE sql STABLE PARALLEL SAFE AS $$
  SELECT t.xact, 1, t.id::text,
         concat_ws('|', 'transfer', t.id, t.kind, t.debit_id, coalesce(t.credit_id::text, '-'), t.amount,
                   coalesce(t.hold::text, '-'), coalesce(t.reference::text, '-'), extract(epoch FROM t.created_at))
    FROM trading_transfer t WHERE t.xact >= p_from AND t.xact < p_upto
  UNION ALL
  SELECT e.xact, 2, lpad(e.id::text, 20, '0'),
         concat_ws('|', 'entry', e.id, e.transfer_id, e.account_id, e.amount, extract(epoch FROM e.created_at))
    FROM trading_entry e WHERE e.xact >= p_from AND e.xact < p_upto
  UNION ALL
  SELECT a.xact, 3, lpad(a.number::text, 20, '0'), concat_ws('|', 'audit', a.number, encode(a.head, 'hex'))
    FROM accounts_auditevent a WHERE a.xact >= p_from AND a.xact < p_upto
$$;

CREATE CONSTRAINT TRIGGER audit AFTER UPDATE OF state ON trading_withdrawal DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW WHEN (NEW.state = 'canceled') EXECUTE FUNCTION audit_row('withdrawal', 'id');
