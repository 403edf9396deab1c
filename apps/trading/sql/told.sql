-- What users hear of their money (events of `aitbc.webhooks`), told by the row that changes, in its transaction.

CREATE OR REPLACE FUNCTION trading_told_money(p_units numeric, p_asset text) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_object('amount', trim_scale(p_units * ('1e-' || decimals)::numeric)::text, 'asset', code)
    FROM trading_asset WHERE code = p_asset
$$;

CREATE OR REPLACE FUNCTION trading_told_payment() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM webhooks_tell('payment.' || NEW.state, 'payment:' || NEW.id, ARRAY[NEW.client_id, NEW.provider_id], jsonb_build_object(
    'id', NEW.id, 'job', NEW.job, 'state', NEW.state, 'held', trading_told_money(NEW.held, NEW.asset),
    'released', trading_told_money(NEW.released, NEW.asset), 'fee', trading_told_money(NEW.fee, NEW.asset),
    'refunded', trading_told_money(NEW.refunded, NEW.asset)));
  RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER payment_told AFTER UPDATE OF state ON trading_payment
  FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION trading_told_payment();

CREATE OR REPLACE FUNCTION trading_told_deposit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM webhooks_tell('deposit.credited', 'deposit:' || NEW.id, ARRAY[NEW.user_id], jsonb_build_object(
    'id', NEW.id, 'chain', NEW.network, 'tx_hash', '0x' || encode(NEW.tx_hash, 'hex'), 'block', NEW.block_number)
    || trading_told_money(NEW.amount, NEW.asset));
  RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER deposit_told AFTER INSERT ON trading_deposit
  FOR EACH ROW WHEN (NEW.user_id IS NOT NULL) EXECUTE FUNCTION trading_told_deposit();

CREATE OR REPLACE FUNCTION trading_told_withdrawal() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM webhooks_tell('withdrawal.' || NEW.state, 'withdrawal:' || NEW.id, ARRAY[NEW.user_id], jsonb_build_object(
    'id', NEW.id, 'state', NEW.state, 'chain', NEW.network, 'tx_hash', '0x' || encode(NEW.tx_hash, 'hex'), 'block', NEW.block)
    || trading_told_money(NEW.amount, 'AIT'));
  RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER withdrawal_told AFTER UPDATE OF state ON trading_withdrawal
  FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state) EXECUTE FUNCTION trading_told_withdrawal();
CREATE OR REPLACE TRIGGER withdrawal_asked AFTER INSERT ON trading_withdrawal
  FOR EACH ROW EXECUTE FUNCTION trading_told_withdrawal();

-- One event per provider once the batch is final, and one for each claim.
CREATE OR REPLACE FUNCTION trading_told_payout(p_event text, l trading_payoutleaf, p_network text) RETURNS void LANGUAGE sql AS $$
  SELECT webhooks_tell(p_event, 'payout:' || l.hold, ARRAY[l.user_id], jsonb_build_object(
    'batch', l.batch_id, 'index', l.position, 'chain', p_network, 'tx_hash', '0x' || encode(l.claim_tx, 'hex'))
    || trading_told_money(l.amount, 'AIT'))
$$;
CREATE OR REPLACE FUNCTION trading_told_claimable() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM trading_told_payout('payout.claimable', l, NEW.network) FROM trading_payoutleaf l WHERE l.batch_id = NEW.id ORDER BY l.position;
  RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER payout_claimable AFTER UPDATE OF state ON trading_payoutbatch
  FOR EACH ROW WHEN (OLD.state IS DISTINCT FROM NEW.state AND NEW.state = 'final') EXECUTE FUNCTION trading_told_claimable();

CREATE OR REPLACE FUNCTION trading_told_claimed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM trading_told_payout('payout.claimed', NEW, b.network) FROM trading_payoutbatch b WHERE b.id = NEW.batch_id;
  RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER payout_claimed AFTER UPDATE OF claimed_at ON trading_payoutleaf
  FOR EACH ROW WHEN (OLD.claimed_at IS NULL AND NEW.claimed_at IS NOT NULL) EXECUTE FUNCTION trading_told_claimed();
