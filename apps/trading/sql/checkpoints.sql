-- Balances at the newest block, for all accounts that moved since the checkpoint before: its number, or NULL
-- when there was no new block. Old balances are read from here (`ledger_balance_at`), and an audit starts here.
CREATE OR REPLACE FUNCTION ledger_checkpoint() RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE block trading_journalblock; since bigint;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended('trading.journal', 0));
  SELECT * INTO block FROM trading_journalblock ORDER BY number DESC LIMIT 1;
  SELECT coalesce(max(b.upto), 0) INTO since FROM trading_checkpoint c JOIN trading_journalblock b ON b.number = c.block_id;
  IF block.upto IS NULL OR block.upto <= since THEN RETURN NULL; END IF;
  INSERT INTO trading_checkpoint (block_id, made_at) VALUES (block.number, clock_timestamp());
  INSERT INTO trading_balance (account_id, block_id, posted, held)
  SELECT m.account, block.number, coalesce(b.posted, 0) + m.posted, coalesce(b.held, 0) + m.held
    FROM ledger_moves(since, block.upto) m LEFT JOIN LATERAL (
      SELECT posted, held FROM trading_balance WHERE account_id = m.account ORDER BY block_id DESC LIMIT 1) b ON true;
  RETURN block.number;
END $$;

-- What the transactions from `p_from` to below `p_upto` changed, per account.
CREATE OR REPLACE FUNCTION ledger_moves(p_from bigint, p_upto bigint)
RETURNS TABLE (account bigint, posted numeric, held numeric) LANGUAGE sql STABLE AS $$
  SELECT x.account, sum(x.posted), sum(x.held) FROM (
    SELECT account_id AS account, amount AS posted, 0 AS held FROM trading_entry WHERE xact >= p_from AND xact < p_upto
    UNION ALL
    SELECT debit_id, 0, amount FROM trading_transfer
     WHERE xact >= p_from AND xact < p_upto AND credit_id IS NULL AND hold IS NULL
    UNION ALL   -- the items of one hold's resolution are of one transaction
    SELECT h.debit_id, 0, -h.amount FROM trading_transfer h
     WHERE h.id IN (SELECT hold FROM trading_transfer WHERE xact >= p_from AND xact < p_upto AND hold IS NOT NULL)) x
   GROUP BY x.account
$$;

-- An account's posted balance as sealed in block `p_block`: a snapshot that nothing moves afterwards.
CREATE OR REPLACE FUNCTION ledger_balance_at(p_account bigint, p_block bigint) RETURNS numeric
LANGUAGE sql STABLE SET enable_seqscan = off AS $$
  WITH base AS (
    SELECT c.block_id, k.upto FROM trading_checkpoint c JOIN trading_journalblock k ON k.number = c.block_id
     WHERE c.block_id <= p_block ORDER BY c.block_id DESC LIMIT 1)
  SELECT coalesce((SELECT posted FROM trading_balance WHERE account_id = p_account AND block_id <= p_block
                    ORDER BY block_id DESC LIMIT 1), 0)
       + coalesce((SELECT sum(amount) FROM trading_entry WHERE account_id = p_account
                    AND xact >= coalesce((SELECT upto FROM base), 0)
                    AND xact < (SELECT upto FROM trading_journalblock WHERE number = p_block)), 0)
$$;

CREATE OR REPLACE TRIGGER checkpoint_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON trading_checkpoint
  FOR EACH STATEMENT EXECUTE FUNCTION trading_refuse_change();
CREATE OR REPLACE TRIGGER balance_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON trading_balance
  FOR EACH STATEMENT EXECUTE FUNCTION trading_refuse_change();
