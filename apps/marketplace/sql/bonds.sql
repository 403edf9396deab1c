-- Bonds: a provider's money behind what his orders promise. Orders reserve parts of it by holds; only what is free can be
-- withdrawn, and leaves after the dispute window (protocols 21).

CREATE OR REPLACE FUNCTION bond_deposit(p_owner uuid, p_amount numeric) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  IF (p_amount > 0) IS NOT TRUE THEN PERFORM trading_refuse(422, 'bond.amount', 'deposit more than nothing', 'amount'); END IF;
  PERFORM order_ledger_all(NULL, jsonb_build_array(jsonb_build_object('action', 'transfer', 'debit', order_account(p_owner, 'available'),
    'credit', ledger_account(p_owner, 'AIT', 'bond'), 'amount', p_amount, 'kind', 'bond.deposit')));
  RETURN bond_shown(p_owner);
END $$;

CREATE OR REPLACE FUNCTION bond_withdraw(p_owner uuid, p_amount numeric) RETURNS text LANGUAGE plpgsql AS $$
DECLARE withdrawal uuid := uuidv7(); code text;
BEGIN
  IF (p_amount > 0) IS NOT TRUE THEN PERFORM trading_refuse(422, 'bond.amount', 'withdraw more than nothing', 'amount'); END IF;
  code := (order_ledger(withdrawal, jsonb_build_array(jsonb_build_object(
    'id', withdrawal, 'action', 'hold', 'debit', order_account(p_owner, 'bond'), 'amount', p_amount, 'kind', 'bond.withdrawal'))))[1];
  IF code <> 'ok' THEN PERFORM trading_refuse(409, 'bond.reserved', 'only what no order has reserved can be withdrawn'); END IF;
  INSERT INTO marketplace_bond_withdrawal (id, owner_id, amount, due_at)
  VALUES (withdrawal, p_owner, p_amount, clock_timestamp() + parameter_value('maturing_seconds') * interval '1 second');
  RETURN bond_shown(p_owner);
END $$;

-- The most overdue withdrawal arrives; NULL when none is due.
CREATE OR REPLACE FUNCTION bond_next() RETURNS text LANGUAGE plpgsql AS $$
DECLARE w marketplace_bond_withdrawal;
BEGIN
  SELECT * INTO w FROM marketplace_bond_withdrawal WHERE done_at IS NULL AND due_at <= clock_timestamp() ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN RETURN NULL; END IF;
  UPDATE marketplace_bond_withdrawal SET done_at = clock_timestamp() WHERE id = w.id;
  PERFORM order_ledger_all(w.id, jsonb_build_array(jsonb_build_object('action', 'post', 'hold', w.id,
    'credit', ledger_account(w.owner_id, 'AIT', 'available'), 'amount', w.amount, 'kind', 'bond.withdrawn')));
  RETURN 'bond_withdrawn';
END $$;

CREATE OR REPLACE FUNCTION bond_shown(p_owner uuid) RETURNS text LANGUAGE sql VOLATILE AS $$
  WITH leaving AS (SELECT * FROM marketplace_bond_withdrawal WHERE owner_id = p_owner AND done_at IS NULL),
  bond AS (SELECT coalesce(sum(posted), 0) AS posted, coalesce(sum(held), 0) AS held FROM trading_account WHERE id = order_account(p_owner, 'bond'))
  SELECT json_build_object('amount', ait_money(posted), 'free', ait_money(posted - held),
    'reserved', ait_money(held - (SELECT coalesce(sum(amount), 0) FROM leaving)),
    'withdrawals', coalesce((SELECT json_agg(json_build_object('id', id, 'amount', ait_money(amount), 'due_at', due_at) ORDER BY id) FROM leaving), '[]'))::text
    FROM bond
$$;
