-- What people decide about money is in the audit log: cancelations, and what came of a second person's review.
CREATE CONSTRAINT TRIGGER audit AFTER UPDATE OF state ON trading_withdrawal DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW WHEN (NEW.state = 'canceled' OR OLD.state = 'review') EXECUTE FUNCTION audit_row('withdrawal', 'id');
CREATE CONSTRAINT TRIGGER audit AFTER UPDATE OF state ON trading_payoutbatch DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW WHEN (OLD.state = 'review') EXECUTE FUNCTION audit_row('payout', 'id');
