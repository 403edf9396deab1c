-- Reviews and reputation: their tables, which only `reputation.sql` and `reviews.sql` write.

-- What two people did with each other: who may review whom, and what a score is made of.
CREATE OR REPLACE VIEW marketplace_deal AS
SELECT j.id, 'job'::text AS what, j.client_id AS client, m.owner_id AS provider, m.id AS miner, j.finished_at AS ended_at,
       p.released + p.fee AS amount, j.state = 'completed' AS ok
  FROM gpu_job j JOIN gpu_miner m ON m.id = j.miner_id JOIN trading_payment p ON p.job = j.id
 WHERE j.client_id <> m.owner_id AND (j.state = 'completed' OR (j.state = 'failed' AND 'provider' = (
         SELECT a.fault FROM gpu_attempt a WHERE a.job_id = j.id ORDER BY a.attempt DESC LIMIT 1)))
UNION ALL
SELECT o.id, 'order', o.client_id, o.provider_id, o.miner_id, o.ended_at, o.paid + o.fee, o.state = 'completed'
  FROM marketplace_order o WHERE o.state = 'completed' OR o.ended_by = 'provider';
COMMENT ON VIEW marketplace_deal IS 'app: SELECT';

CREATE TABLE marketplace_review (
  id uuid PRIMARY KEY,
  deal uuid NOT NULL,
  author_id uuid NOT NULL REFERENCES accounts_user,
  subject_id uuid NOT NULL REFERENCES accounts_user,
  overall smallint NOT NULL CHECK (overall BETWEEN 1 AND 5),
  performance smallint NOT NULL CHECK (performance BETWEEN 1 AND 5),
  communication smallint NOT NULL CHECK (communication BETWEEN 1 AND 5),
  reliability smallint NOT NULL CHECK (reliability BETWEEN 1 AND 5),
  value smallint NOT NULL CHECK (value BETWEEN 1 AND 5),
  text varchar(1000) NOT NULL,
  tags varchar(40)[] NOT NULL,
  weight numeric NOT NULL CHECK (weight BETWEEN 0.1 AND 10),   -- of what the deal cost, in AIT
  state varchar(8) NOT NULL CHECK (state IN ('pending', 'approved', 'rejected')),
  created_at timestamptz NOT NULL,
  edited_at timestamptz,
  moderated_by_id uuid REFERENCES accounts_user,
  CHECK (author_id <> subject_id),
  CONSTRAINT review_once UNIQUE (deal, author_id)
);
CREATE INDEX review_of_subject ON marketplace_review (subject_id, id DESC) WHERE state = 'approved';
CREATE INDEX review_of_author ON marketplace_review (author_id, id DESC);

-- Sums over the user's events, and the score made of them.
CREATE TABLE marketplace_reputation (
  user_id uuid PRIMARY KEY REFERENCES accounts_user,
  ok bigint NOT NULL DEFAULT 0 CHECK (ok >= 0),          -- deals that he provided, and those that he failed to
  failed bigint NOT NULL DEFAULT 0 CHECK (failed >= 0),
  bought bigint NOT NULL DEFAULT 0,
  lost bigint NOT NULL DEFAULT 0,                        -- disputes
  earned numeric(38, 0) NOT NULL DEFAULT 0,
  waited_ms numeric NOT NULL DEFAULT 0,                  -- from lease to start, over `ok`
  uptime numeric CHECK (uptime BETWEEN 0 AND 1),         -- reliability score of his miners; null: not measured
  devices int NOT NULL DEFAULT 0,                        -- that passed the platform's hardware challenge
  performance smallint NOT NULL DEFAULT 500,
  reliability smallint NOT NULL DEFAULT 500,
  community smallint NOT NULL DEFAULT 500,
  security smallint NOT NULL DEFAULT 500,
  economic smallint NOT NULL DEFAULT 500,
  score smallint NOT NULL DEFAULT 500 CHECK (score BETWEEN 0 AND 1000),
  computed_at timestamptz NOT NULL
);
CREATE INDEX reputation_rank ON marketplace_reputation (score DESC, user_id);
CREATE INDEX reputation_age ON marketplace_reputation (computed_at);

CREATE TABLE marketplace_reputation_event (
  number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  user_id uuid NOT NULL REFERENCES accounts_user,
  cause varchar(20) NOT NULL CHECK (cause IN ('deal.completed', 'deal.failed', 'deal.bought', 'dispute.lost', 'dispute.won',
                                              'review.counted', 'review.removed', 'hardware.measured')),
  ref uuid,                                              -- the deal, the dispute's payment, the review
  facts jsonb NOT NULL,
  score smallint NOT NULL,                               -- after it
  at timestamptz NOT NULL
);
CREATE INDEX reputation_history ON marketplace_reputation_event (user_id, number DESC);
CREATE INDEX reputation_reviews ON marketplace_reputation_event (user_id, ref, number DESC) WHERE cause LIKE 'review.%';
CREATE UNIQUE INDEX reputation_event_once ON marketplace_reputation_event (ref, user_id, cause)
  WHERE cause LIKE 'deal.%' OR cause LIKE 'dispute.%';
CREATE TRIGGER reputation_event_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON marketplace_reputation_event
  FOR EACH STATEMENT EXECUTE FUNCTION trading_refuse_change();

-- Up to where deals were looked at.
CREATE TABLE marketplace_reputation_cursor (id boolean PRIMARY KEY DEFAULT true CHECK (id), upto timestamptz NOT NULL);
