-- CREDIT is the platform's own promise, for installations without a chain (protocols 7): it has no place where money
-- leaves to a chain or comes from one. `platform` is the account that mirrors what was granted.
ALTER TABLE trading_account DROP CONSTRAINT IF EXISTS account_credit_stays;
ALTER TABLE trading_account ADD CONSTRAINT account_credit_stays
  CHECK (asset_id <> 'CREDIT' OR (kind NOT IN ('claimable', 'unattributed') AND chain IN ('', 'platform')));
