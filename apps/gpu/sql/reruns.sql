-- Work done again elsewhere: their tables, which only `reexecution.sql` writes.

-- A job that repeats known work on a miner of somebody else, and what the comparison found.
CREATE TABLE gpu_rerun (
  id uuid PRIMARY KEY,
  about uuid NOT NULL,                    -- the disputed payment, or the asset that is checked
  number smallint NOT NULL,
  job uuid NOT NULL UNIQUE,
  miner_id uuid NOT NULL REFERENCES gpu_miner,
  expected jsonb,                         -- null: the disputed job's output
  tolerance float8 NOT NULL CHECK (tolerance >= 0),
  state varchar(7) NOT NULL CHECK (state IN ('running', 'agrees', 'differs', 'nothing')),
  measured jsonb,
  agrees_with smallint[] NOT NULL DEFAULT '{}',
  started_at timestamptz NOT NULL,
  deadline timestamptz NOT NULL,
  ended_at timestamptz,
  UNIQUE (about, number),
  CHECK ((state = 'running') = (ended_at IS NULL) AND (state = 'running') = (measured IS NULL))
);
CREATE INDEX rerun_running ON gpu_rerun (deadline) WHERE state = 'running';
CREATE TRIGGER rerun_over_once BEFORE UPDATE ON gpu_rerun FOR EACH ROW WHEN (OLD.state <> 'running') EXECUTE FUNCTION trading_over_guard();
CREATE TRIGGER rerun_never_deleted BEFORE DELETE OR TRUNCATE ON gpu_rerun FOR EACH STATEMENT EXECUTE FUNCTION trading_refuse_change();

-- A dispute that runs decide. `deposit`: the client's hold for what the runs cost, should he lose.
CREATE TABLE gpu_reexecution (
  payment_id uuid PRIMARY KEY REFERENCES trading_dispute,
  job uuid NOT NULL UNIQUE,
  deposit uuid NOT NULL,
  tolerance float8 NOT NULL,
  state varchar(8) NOT NULL CHECK (state IN ('running', 'decided', 'operator', 'closed')),
  verdict varchar(8) CHECK (verdict IN ('upheld', 'refunded')),
  reason varchar(2000),                   -- why an operator decides: no verdict, or somebody's appeal
  appealed_by_id uuid REFERENCES accounts_user,
  due_at timestamptz,
  created_at timestamptz NOT NULL,
  CHECK (state <> 'decided' OR verdict IS NOT NULL), CHECK (state <> 'operator' OR reason IS NOT NULL)
);
CREATE INDEX reexecution_open ON gpu_reexecution (due_at) WHERE state <> 'closed';

-- What a party shows: bytes that it uploaded, which the other one may read from then on.
CREATE TABLE gpu_dispute_evidence (
  payment_id uuid REFERENCES trading_dispute,
  party_id uuid REFERENCES accounts_user,
  artifact bytea REFERENCES gpu_artifact,
  note varchar(300) NOT NULL,
  at timestamptz NOT NULL,
  PRIMARY KEY (payment_id, party_id, artifact)
);
CREATE TRIGGER evidence_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON gpu_dispute_evidence FOR EACH STATEMENT EXECUTE FUNCTION trading_refuse_change();

-- The desk: every dispute, and until when something must happen.
CREATE OR REPLACE VIEW gpu_dispute AS
SELECT d.payment_id, p.job, p.client_id, p.provider_id, p.asset, d.claimed, d.total, d.reason, d.opened_at,
       CASE WHEN d.resolved_at IS NOT NULL THEN 'resolved' ELSE coalesce(x.state, 'operator') END AS state, x.verdict,
       CASE WHEN d.resolved_at IS NULL THEN CASE WHEN x.state IN ('running', 'decided') THEN x.due_at
            ELSE d.opened_at + parameter_value('dispute_seconds') * interval '1 second' END END AS due_at
  FROM trading_dispute d JOIN trading_payment p ON p.id = d.payment_id LEFT JOIN gpu_reexecution x ON x.payment_id = d.payment_id;
COMMENT ON VIEW gpu_dispute IS 'app: SELECT';
