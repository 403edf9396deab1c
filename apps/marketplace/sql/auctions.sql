-- Reverse auctions: a client asks, providers bid, the lowest or the chosen bid becomes an order of the auction's id. Open bids
-- show their price; of a sealed one there is only a commitment until bidding is over (protocols 23).
-- open -> reveal (sealed) -> award -> awarded, or void. Client's and bidders' money waits in holds of the auction's and the
-- bid's id; a bid occupies nothing before it is awarded. Each transaction calls the ledger once, what is left the timer does.
-- Lock order: the auction, then orders by id, occupancy, holds, accounts by id. A bid is changed under its auction's lock only.

CREATE TABLE marketplace_auction (
  id uuid PRIMARY KEY,
  client_id uuid NOT NULL REFERENCES accounts_user,
  wants jsonb NOT NULL,                           -- as of quotes; its max_price binds bids, not the offers' prices
  seconds int NOT NULL CHECK (seconds > 0),
  ceiling numeric(38, 0) NOT NULL CHECK (ceiling > 0),   -- units a second for all devices, fee inside
  deposit numeric(38, 0) NOT NULL CHECK (deposit > 0 AND deposit <= ceiling * seconds),
  sealed boolean NOT NULL,
  award varchar(6) NOT NULL CHECK (award IN ('manual', 'lowest')),
  failover boolean NOT NULL,
  reveal_seconds int CHECK (reveal_seconds > 0),
  state varchar(7) NOT NULL CHECK (state IN ('open', 'reveal', 'award', 'awarded', 'void')),
  reason varchar(100) NOT NULL,
  created_at timestamptz NOT NULL,
  closes_at timestamptz NOT NULL CHECK (closes_at > created_at),
  reveal_until timestamptz CHECK (reveal_until > closes_at),
  award_until timestamptz CHECK (award_until > closes_at),
  settled_at timestamptz,                         -- the client's hold became the order's, or returned
  due_at timestamptz,
  UNIQUE (id, sealed, ceiling),
  CHECK (sealed = (reveal_until IS NOT NULL) AND sealed = (reveal_seconds IS NOT NULL)),
  CHECK (CASE state WHEN 'awarded' THEN settled_at IS NOT NULL WHEN 'void' THEN reason <> '' ELSE settled_at IS NULL END),
  CHECK (state <> 'reveal' OR sealed)
);
CREATE INDEX auction_due ON marketplace_auction (due_at) WHERE due_at IS NOT NULL;
CREATE INDEX auction_by_state ON marketplace_auction (state, id);
CREATE INDEX auction_by_model ON marketplace_auction (lower(wants->>'model'), id);
CREATE INDEX auction_of_client ON marketplace_auction (client_id) WHERE state IN ('open', 'reveal', 'award');

CREATE TABLE marketplace_bid (
  id uuid PRIMARY KEY,
  auction_id uuid NOT NULL,
  sealed boolean NOT NULL,
  ceiling numeric(38, 0) NOT NULL,
  bidder_id uuid NOT NULL REFERENCES accounts_user,
  offer_id uuid NOT NULL REFERENCES marketplace_offer,
  held numeric(38, 0) NOT NULL CHECK (held > 0),
  price numeric(38, 0) CHECK (price > 0 AND price <= ceiling),
  commitment bytea CHECK (octet_length(commitment) = 32),
  salt bytea CHECK (octet_length(salt) = 32),
  state varchar(9) NOT NULL CHECK (state IN ('open', 'revealed', 'withdrawn', 'won', 'lost', 'failed', 'forfeited')),
  created_at timestamptz NOT NULL,
  settled_at timestamptz,                         -- its hold is gone
  FOREIGN KEY (auction_id, sealed, ceiling) REFERENCES marketplace_auction (id, sealed, ceiling),
  CHECK (sealed = (commitment IS NOT NULL) AND (sealed AND price IS NOT NULL) = (salt IS NOT NULL)),
  CHECK (CASE WHEN sealed THEN (state IN ('open', 'withdrawn')) <= (price IS NULL) AND (state IN ('revealed', 'won', 'failed')) <= (price IS NOT NULL)
              ELSE price IS NOT NULL AND state <> 'revealed' END),
  CHECK (settled_at IS NULL OR state NOT IN ('open', 'revealed'))
);
CREATE UNIQUE INDEX bid_once ON marketplace_bid (auction_id, offer_id) WHERE state IN ('open', 'revealed');
CREATE UNIQUE INDEX bid_won_once ON marketplace_bid (auction_id) WHERE state = 'won';
CREATE INDEX bid_unsettled ON marketplace_bid (auction_id, id) WHERE settled_at IS NULL;
CREATE INDEX bid_of_bidder ON marketplace_bid (bidder_id, id);

-- Terms are agreed, ends are final, a price is said once.
CREATE OR REPLACE FUNCTION auction_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION '% % is over, or its terms are agreed', TG_TABLE_NAME, OLD.id USING ERRCODE = 'integrity_constraint_violation';
END $$;
CREATE TRIGGER auction_final BEFORE UPDATE ON marketplace_auction FOR EACH ROW WHEN (
  OLD.state IN ('awarded', 'void') AND NEW.state <> OLD.state OR OLD.settled_at IS NOT NULL AND NEW.settled_at IS DISTINCT FROM OLD.settled_at
  OR (NEW.client_id, NEW.wants, NEW.seconds, NEW.ceiling, NEW.deposit, NEW.sealed, NEW.award, NEW.failover, NEW.closes_at)
     IS DISTINCT FROM (OLD.client_id, OLD.wants, OLD.seconds, OLD.ceiling, OLD.deposit, OLD.sealed, OLD.award, OLD.failover, OLD.closes_at))
  EXECUTE FUNCTION auction_guard();
CREATE TRIGGER bid_final BEFORE UPDATE ON marketplace_bid FOR EACH ROW WHEN (
  OLD.state NOT IN ('open', 'revealed') AND NEW.state <> OLD.state OR OLD.price IS NOT NULL AND NEW.price IS DISTINCT FROM OLD.price
  OR (NEW.auction_id, NEW.bidder_id, NEW.offer_id, NEW.held, NEW.commitment)
     IS DISTINCT FROM (OLD.auction_id, OLD.bidder_id, OLD.offer_id, OLD.held, OLD.commitment))
  EXECUTE FUNCTION auction_guard();

-- When the timer must look at it: at once while money waits to go back, or the lowest bid to be awarded.
CREATE OR REPLACE FUNCTION auction_arm() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.due_at := CASE WHEN NEW.state = 'void' AND NEW.settled_at IS NULL OR auction_owes(NEW.id) THEN clock_timestamp()
    ELSE CASE NEW.state WHEN 'open' THEN NEW.closes_at WHEN 'reveal' THEN NEW.reveal_until
      WHEN 'award' THEN CASE NEW.award WHEN 'manual' THEN NEW.award_until ELSE clock_timestamp() END END END;
  RETURN NEW;
END $$;
CREATE TRIGGER auction_armed BEFORE INSERT OR UPDATE OF state, reveal_until, award_until, settled_at ON marketplace_auction
  FOR EACH ROW EXECUTE FUNCTION auction_arm();

CREATE OR REPLACE FUNCTION auction_owes(p_auction uuid) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT EXISTS (SELECT FROM marketplace_bid WHERE auction_id = p_auction AND settled_at IS NULL AND state NOT IN ('open', 'revealed'))
$$;

-- What its client and its bidders hear; never a price.
CREATE OR REPLACE FUNCTION auction_told() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM webhooks_tell('auction.' || CASE NEW.state WHEN 'awarded' THEN 'awarded' WHEN 'void' THEN 'void' ELSE 'closed' END, 'auction:' || NEW.id,
    (SELECT array_agg(DISTINCT who) FROM (SELECT NEW.client_id AS who UNION
       SELECT bidder_id FROM marketplace_bid WHERE auction_id = NEW.id AND state <> 'withdrawn') x),
    jsonb_build_object('id', NEW.id, 'state', NEW.state, 'reveal_until', NEW.reveal_until, 'award_until', NEW.award_until,
      'winner', (SELECT id FROM marketplace_bid WHERE auction_id = NEW.id AND state = 'won'), 'reason', nullif(NEW.reason, '')));
  RETURN NULL;
END $$;
CREATE TRIGGER auction_told AFTER UPDATE OF state ON marketplace_auction FOR EACH ROW
  WHEN (NEW.state <> OLD.state AND (OLD.state = 'open' OR NEW.state IN ('awarded', 'void'))) EXECUTE FUNCTION auction_told();

-- The client's wish, with ceiling * seconds held at once, so that the escrow cannot fail at the award.
CREATE OR REPLACE FUNCTION auction_open(p_client uuid, p_terms jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE a marketplace_auction; moment timestamptz;
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended(p_client::text, 23));   -- one at a time counts his auctions
  moment := clock_timestamp();
  a := jsonb_populate_record(NULL::marketplace_auction, p_terms);
  a.closes_at := to_timestamp((p_terms->>'closes')::float8);   -- as text it may have an offset that PostgreSQL does not know
  a.id := uuidv7(); a.client_id := p_client; a.state := 'open'; a.reason := ''; a.created_at := moment;
  a.reveal_seconds := CASE WHEN a.sealed THEN a.reveal_seconds END;
  a.reveal_until := a.closes_at + a.reveal_seconds * interval '1 second';
  IF a.closes_at NOT BETWEEN moment + interval '10 seconds' AND moment + interval '30 days' THEN
    PERFORM trading_refuse(422, 'auction.closes_at', 'bidding lasts from ten seconds to thirty days', 'closes_at');
  ELSIF a.sealed AND a.reveal_seconds IS NULL THEN
    PERFORM trading_refuse(422, 'auction.reveal_seconds', 'say how long bids may be revealed', 'reveal_seconds');
  ELSIF a.ceiling <= 0 THEN PERFORM trading_refuse(422, 'auction.ceiling', 'a ceiling is more than nothing', 'ceiling');
  ELSIF a.deposit <= 0 OR a.deposit > a.ceiling * a.seconds THEN
    PERFORM trading_refuse(422, 'auction.deposit', 'a deposit is more than nothing and at most ceiling times seconds', 'deposit');
  ELSIF (SELECT count(*) FROM marketplace_auction WHERE client_id = p_client AND state IN ('open', 'reveal', 'award')) >= parameter_value('quotes_open') THEN
    PERFORM trading_refuse(409, 'auction.too_many', 'wait until some of your auctions are over, or cancel them');
  ELSIF a.ceiling * a.seconds >= 1e38 THEN
    PERFORM trading_refuse(409, 'payment.insufficient_funds', 'the available balance does not cover this amount');
  END IF;
  PERFORM order_ledger_all(a.id, jsonb_build_array(jsonb_build_object('id', a.id, 'action', 'hold',
    'debit', order_account(p_client, 'available'), 'amount', a.ceiling * a.seconds, 'kind', 'auction.hold')));
  INSERT INTO marketplace_auction SELECT (a).*;
  RETURN auction_shown(a.id);
END $$;

-- A deadline, or later where an outage of the platform touched its window: then all of the window again (protocols 16).
CREATE OR REPLACE FUNCTION auction_deadline(p_since timestamptz, p_until timestamptz, p_seconds bigint) RETURNS timestamptz LANGUAGE sql STABLE AS $$
  SELECT greatest(p_until, max(ended_at) + p_seconds * interval '1 second') FROM core_platform_outage
   WHERE process = 'relay' AND tstzrange(began_at, ended_at) && tstzrange(p_since, p_until)
$$;

-- What the clock did to an auction that the caller has locked. Moves no money.
CREATE OR REPLACE FUNCTION auction_phase(a marketplace_auction) RETURNS marketplace_auction LANGUAGE plpgsql AS $$
DECLARE moment timestamptz := clock_timestamp(); was marketplace_auction := a; patience bigint := parameter_value('auction_award_seconds'); why text;
BEGIN
  IF a.state = 'open' AND a.closes_at <= moment THEN
    a.state := CASE WHEN a.sealed THEN 'reveal' ELSE 'award' END;
    why := 'nobody bid';
  END IF;
  IF a.state = 'reveal' AND a.reveal_until <= moment THEN
    a.reveal_until := auction_deadline(a.closes_at, a.reveal_until, a.reveal_seconds);
    IF a.reveal_until <= moment THEN
      a.state := 'award';
      why := CASE WHEN EXISTS (SELECT FROM marketplace_bid WHERE auction_id = a.id AND state = 'open') THEN 'nobody revealed a bid' ELSE why END;
      UPDATE marketplace_bid SET state = 'forfeited' WHERE auction_id = a.id AND state = 'open';
    END IF;
  END IF;
  IF a.state = 'award' AND a.award_until IS NULL THEN
    a.award_until := coalesce(a.reveal_until, a.closes_at) + patience * interval '1 second';
  END IF;
  IF a.state IN ('reveal', 'award') AND NOT EXISTS (SELECT FROM marketplace_bid WHERE auction_id = a.id AND state IN ('open', 'revealed')) THEN
    a.state := 'void'; a.reason := coalesce(why, 'no bid could be delivered');
  ELSIF a.state = 'award' AND a.award = 'manual' AND a.award_until <= moment THEN
    a.award_until := auction_deadline(coalesce(a.reveal_until, a.closes_at), a.award_until, patience);
    IF a.award_until <= moment THEN
      a.state := 'void'; a.reason := 'its client awarded it to nobody in time';
      UPDATE marketplace_bid SET state = 'lost' WHERE auction_id = a.id AND state IN ('open', 'revealed');
    END IF;
  END IF;
  IF a IS DISTINCT FROM was THEN
    UPDATE marketplace_auction SET state = a.state, reason = a.reason, reveal_until = a.reveal_until, award_until = a.award_until
     WHERE id = a.id RETURNING * INTO a;
  END IF;
  RETURN a;
END $$;

-- Locked, and as the clock has it.
CREATE OR REPLACE FUNCTION auction_lock(p_auction uuid) RETURNS marketplace_auction LANGUAGE plpgsql AS $$
DECLARE a marketplace_auction;
BEGIN
  SELECT * INTO a FROM marketplace_auction WHERE id = p_auction FOR UPDATE;
  IF NOT FOUND THEN PERFORM trading_refuse(404, 'auction.unknown', 'there is no such auction'); END IF;
  RETURN auction_phase(a);
END $$;

CREATE OR REPLACE FUNCTION auction_unmet(a marketplace_auction, o marketplace_offer) RETURNS text[] LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN o.state <> 'listed' THEN ARRAY['listed'] ELSE
    offer_unmet(o, a.client_id, jsonb_build_object('wants', a.wants - 'max_price', 'type', 'on_demand', 'seconds', a.seconds)) END
$$;

CREATE OR REPLACE FUNCTION auction_price(a marketplace_auction, p_offer uuid, p_price numeric) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF (p_price > 0 AND p_price <= least(a.ceiling, (a.wants->>'max_price')::numeric
        * (SELECT device_count FROM marketplace_offer WHERE id = p_offer))) IS NOT TRUE THEN
    PERFORM trading_refuse(422, 'bid.price', 'a bid is more than nothing and at most the ceiling', 'price');
  END IF;
END $$;

-- Whether it takes a bid now, of this sort. Asked first without the bid: what is refused may be written into the server's log,
-- statement and all, and a price must not get there before bidding is over.
CREATE OR REPLACE FUNCTION auction_takes(p_auction uuid, p_priced boolean, p_sealed boolean) RETURNS marketplace_auction LANGUAGE plpgsql AS $$
DECLARE a marketplace_auction := auction_lock(p_auction);
BEGIN
  IF a.state <> 'open' THEN PERFORM trading_refuse(409, 'auction.closed', 'bidding is over');
  ELSIF a.sealed AND (p_priced OR NOT p_sealed) THEN PERFORM trading_refuse(422, 'bid.sealed', 'this auction is sealed: send a commitment, and no price', 'price');
  ELSIF NOT a.sealed AND (p_sealed OR NOT p_priced) THEN PERFORM trading_refuse(422, 'bid.open', 'this auction is open: send a price, and no commitment', 'price');
  END IF;
  RETURN a;
END $$;

-- An offer of the bidder's at a price, or at a sealed one. He holds the deposit; in a sealed auction what everybody there holds,
-- the client's total, so that the hold says nothing of the price.
CREATE OR REPLACE FUNCTION auction_bid(p_bidder uuid, p_auction uuid, p_offer uuid, p_price numeric, p_commitment text) RETURNS text LANGUAGE plpgsql
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE a marketplace_auction := auction_takes(p_auction, p_price IS NOT NULL, p_commitment IS NOT NULL); o marketplace_offer; b marketplace_bid; unmet text[];
BEGIN
  SELECT f.* INTO o FROM marketplace_offer f JOIN gpu_miner m ON m.id = f.miner_id WHERE f.id = p_offer AND m.owner_id = p_bidder;
  IF NOT FOUND THEN PERFORM trading_refuse(404, 'offer.unknown', 'you have no such offer'); END IF;
  unmet := auction_unmet(a, o);
  IF unmet <> '{}' THEN PERFORM trading_refuse(409, 'bid.unmet', 'the offer does not meet: ' || array_to_string(unmet, ', '), 'offer_id');
  ELSIF EXISTS (SELECT FROM marketplace_bid WHERE auction_id = a.id AND offer_id = o.id AND state = 'open') THEN
    PERFORM trading_refuse(409, 'bid.exists', 'this offer bids already: withdraw that bid first');
  ELSIF (SELECT count(*) FROM marketplace_bid WHERE auction_id = a.id AND state <> 'withdrawn') >= 200 THEN
    PERFORM trading_refuse(409, 'auction.full', 'an auction takes 200 bids');
  ELSIF NOT a.sealed THEN PERFORM auction_price(a, o.id, p_price);
  END IF;
  INSERT INTO marketplace_bid (id, auction_id, sealed, ceiling, bidder_id, offer_id, held, price, commitment, state, created_at)
  VALUES (uuidv7(), a.id, a.sealed, a.ceiling, p_bidder, o.id, CASE WHEN a.sealed THEN a.ceiling * a.seconds ELSE a.deposit END,
    p_price, decode(substr(p_commitment, 3), 'hex'), 'open', clock_timestamp()) RETURNING * INTO b;
  PERFORM order_ledger_all(a.id, jsonb_build_array(jsonb_build_object('id', b.id, 'action', 'hold',
    'debit', ledger_account(p_bidder, 'AIT', 'available'), 'amount', b.held, 'kind', 'auction.bid')));
  RETURN bid_document(b)::text;
END $$;

CREATE OR REPLACE FUNCTION auction_own_bid(p_bidder uuid, p_auction uuid, p_bid uuid) RETURNS marketplace_bid LANGUAGE plpgsql AS $$
DECLARE b marketplace_bid;
BEGIN
  SELECT * INTO b FROM marketplace_bid WHERE id = p_bid AND auction_id = p_auction AND (p_bidder IS NULL OR bidder_id = p_bidder);
  IF NOT FOUND THEN PERFORM trading_refuse(404, 'bid.unknown', 'there is no such bid of yours'); END IF;
  RETURN b;
END $$;

-- Before closing only; the hold returns. A repeat answers the same.
CREATE OR REPLACE FUNCTION auction_withdraw(p_bidder uuid, p_auction uuid, p_bid uuid) RETURNS text LANGUAGE plpgsql
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE a marketplace_auction := auction_lock(p_auction); b marketplace_bid := auction_own_bid(p_bidder, p_auction, p_bid);
BEGIN
  IF b.state = 'withdrawn' THEN RETURN bid_document(b)::text;
  ELSIF a.state <> 'open' THEN PERFORM trading_refuse(409, 'auction.closed', 'bidding is over'); END IF;
  UPDATE marketplace_bid SET state = 'withdrawn', settled_at = clock_timestamp() WHERE id = b.id RETURNING * INTO b;
  PERFORM order_ledger_all(a.id, jsonb_build_array(jsonb_build_object('action', 'void', 'hold', b.id, 'kind', 'auction.return')));
  RETURN bid_document(b)::text;
END $$;

-- Whether this bid may be revealed now. Asked first without the price, as `auction_takes`.
CREATE OR REPLACE FUNCTION auction_reveals(p_bidder uuid, p_auction uuid, p_bid uuid) RETURNS marketplace_bid LANGUAGE plpgsql AS $$
DECLARE a marketplace_auction := auction_lock(p_auction); b marketplace_bid := auction_own_bid(p_bidder, p_auction, p_bid);
BEGIN
  IF a.state <> 'reveal' THEN PERFORM trading_refuse(409, 'auction.' || a.state, 'bids are revealed between closes_at and reveal_until of a sealed auction');
  ELSIF b.state <> 'open' THEN PERFORM trading_refuse(409, 'bid.' || b.state, 'this bid is ' || b.state); END IF;
  RETURN b;
END $$;

-- p_text: the price as it stands in the commitment, p_price: in units.
CREATE OR REPLACE FUNCTION auction_reveal(p_bidder uuid, p_auction uuid, p_bid uuid, p_text text, p_price numeric, p_salt text) RETURNS text LANGUAGE plpgsql
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE b marketplace_bid := auction_reveals(p_bidder, p_auction, p_bid); a marketplace_auction; said bytea := decode(substr(p_salt, 3), 'hex');
BEGIN
  SELECT * INTO a FROM marketplace_auction WHERE id = p_auction;
  IF sha256(convert_to(a.id::text || b.bidder_id::text || p_text, 'UTF8') || said) <> b.commitment THEN
    PERFORM trading_refuse(422, 'bid.mismatch', 'this price and salt are not what the bid committed to', 'salt');
  END IF;
  PERFORM auction_price(a, b.offer_id, p_price);
  UPDATE marketplace_bid SET state = 'revealed', price = p_price, salt = said WHERE id = b.id RETURNING * INTO b;
  RETURN bid_document(b)::text;
END $$;

-- Make a bid the order, with the auction's lock. An offer that is gone or changed forfeits the deposit; where somebody else has
-- the devices, or the bond, it only fails: else a client could take them himself and collect deposits. Whether it won.
CREATE OR REPLACE FUNCTION auction_try(a marketplace_auction, b marketplace_bid) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE q marketplace_quote; o marketplace_offer; moment timestamptz := clock_timestamp(); fault text;
BEGIN
  SELECT * INTO STRICT o FROM marketplace_offer WHERE id = b.offer_id;
  IF auction_unmet(a, o) <> '{}' THEN
    fault := 'forfeited';
  ELSE
    q.id := a.id; q.kind := 'auction'; q.offer_id := o.id; q.devices := offer_devices(o.id); q.client_id := a.client_id;
    q.rate := b.price; q.seconds := a.seconds; q.total := b.price * a.seconds; q.fee_bps := parameter_value('fee_bps');
    q.failover := a.failover; q.wants := jsonb_build_object('model', o.model, 'devices', o.device_count) || a.wants;
    BEGIN
      q.starts_at := order_evict(q, moment, parameter_value('order_start_seconds') * interval '1 second');
      PERFORM order_place(q, a.id, NULL);
    EXCEPTION WHEN SQLSTATE 'AI409' THEN
      IF SQLERRM NOT IN ('quote.taken', 'order.no_bond') THEN RAISE; END IF;
      fault := 'failed';
    END;
  END IF;
  UPDATE marketplace_bid SET state = coalesce(fault, 'won') WHERE id = b.id;
  IF fault IS NULL THEN UPDATE marketplace_bid SET state = 'lost' WHERE auction_id = a.id AND state IN ('open', 'revealed'); END IF;
  UPDATE marketplace_auction SET state = CASE WHEN fault IS NULL THEN 'awarded' ELSE state END,
         settled_at = CASE WHEN fault IS NULL THEN moment END WHERE id = a.id;
  RETURN fault IS NULL;
END $$;

-- By its client -> the bid: won, or failed or forfeited, and then he may choose another.
CREATE OR REPLACE FUNCTION auction_award(p_client uuid, p_auction uuid, p_bid uuid) RETURNS text LANGUAGE plpgsql
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE a marketplace_auction := auction_lock(p_auction); b marketplace_bid;
BEGIN
  IF a.client_id <> p_client THEN PERFORM trading_refuse(403, 'auction.client_only', 'only its client awards an auction');
  ELSIF a.state <> 'award' THEN PERFORM trading_refuse(409, 'auction.' || a.state, 'this auction is not to be awarded now');
  ELSIF a.award <> 'manual' THEN PERFORM trading_refuse(409, 'auction.automatic', 'the lowest bid wins this auction by itself'); END IF;
  b := auction_own_bid(NULL, p_auction, p_bid);
  IF b.state NOT IN ('open', 'revealed') THEN PERFORM trading_refuse(409, 'bid.' || b.state, 'this bid is ' || b.state); END IF;
  PERFORM auction_try(a, b);
  SELECT * INTO b FROM marketplace_bid WHERE id = p_bid;
  RETURN bid_document(b)::text;
END $$;

-- By its client before closing, while no price is known; by the platform (p_user NULL) before the award. A repeat answers the same.
CREATE OR REPLACE FUNCTION auction_cancel(p_user uuid, p_auction uuid) RETURNS text LANGUAGE plpgsql
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE a marketplace_auction := auction_lock(p_auction); canceled text := 'canceled by its client';
BEGIN
  IF p_user IS NULL THEN canceled := 'canceled by the platform';
  ELSIF a.client_id <> p_user THEN PERFORM trading_refuse(403, 'auction.client_only', 'only its client cancels an auction'); END IF;
  IF a.state = 'void' AND a.reason = canceled THEN RETURN auction_shown(a.id);
  ELSIF a.state <> 'open' AND (p_user IS NOT NULL OR a.state IN ('awarded', 'void')) THEN
    PERFORM trading_refuse(409, 'auction.' || a.state, 'bidding is over');
  ELSIF p_user IS NOT NULL AND NOT a.sealed AND EXISTS (SELECT FROM marketplace_bid WHERE auction_id = a.id AND state = 'open') THEN
    PERFORM trading_refuse(409, 'auction.has_bids', 'a price was bid already');
  END IF;
  UPDATE marketplace_bid SET state = 'lost' WHERE auction_id = a.id AND state IN ('open', 'revealed');
  UPDATE marketplace_auction SET state = 'void', reason = canceled WHERE id = a.id RETURNING * INTO a;
  PERFORM auction_settle(a);
  RETURN auction_shown(a.id);
END $$;

-- All that an auction owes goes back; the deposit of who forfeits it goes to the client.
CREATE OR REPLACE FUNCTION auction_settle(a marketplace_auction) RETURNS text LANGUAGE plpgsql AS $$
DECLARE items jsonb;
BEGIN
  WITH done AS (UPDATE marketplace_bid SET settled_at = clock_timestamp()
                 WHERE auction_id = a.id AND settled_at IS NULL AND state NOT IN ('open', 'revealed') RETURNING id, state)
  SELECT coalesce(jsonb_agg(CASE state WHEN 'forfeited' THEN jsonb_build_object('action', 'post', 'hold', id,
      'credit', ledger_account(a.client_id, 'AIT', 'available'), 'amount', a.deposit, 'kind', 'auction.forfeit')
    ELSE jsonb_build_object('action', 'void', 'hold', id, 'kind', 'auction.return') END ORDER BY id), '[]') INTO items FROM done;
  IF a.state = 'void' AND a.settled_at IS NULL THEN
    items := items || jsonb_build_object('action', 'void', 'hold', a.id, 'kind', 'auction.return');
    a.settled_at := clock_timestamp();
  END IF;
  UPDATE marketplace_auction SET settled_at = a.settled_at WHERE id = a.id;
  PERFORM order_ledger_all(a.id, items);
  RETURN 'auction_settled';
END $$;

-- What the time asks of an auction that the caller has locked -> what was done.
CREATE OR REPLACE FUNCTION auction_turn(a marketplace_auction) RETURNS text LANGUAGE plpgsql AS $$
DECLARE b marketplace_bid;
BEGIN
  a := auction_phase(a);
  IF auction_owes(a.id) OR a.state = 'void' AND a.settled_at IS NULL THEN
    RETURN auction_settle(a);
  ELSIF a.state = 'award' AND a.award = 'lowest' THEN   -- of two that bid the same, the earlier
    SELECT * INTO STRICT b FROM marketplace_bid WHERE auction_id = a.id AND state IN ('open', 'revealed') ORDER BY price, created_at, id LIMIT 1;
    RETURN CASE WHEN auction_try(a, b) THEN 'auction_awarded' ELSE 'bid_failed' END;
  END IF;
  UPDATE marketplace_auction SET state = state WHERE id = a.id;
  RETURN 'auction_' || a.state;
END $$;

-- The timer, as `order_next`.
CREATE OR REPLACE FUNCTION auction_next() RETURNS text LANGUAGE plpgsql
  SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE a marketplace_auction;
BEGIN
  SELECT * INTO a FROM marketplace_auction WHERE due_at <= clock_timestamp() ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN RETURN NULL; END IF;
  BEGIN
    RETURN auction_turn(a);
  EXCEPTION WHEN integrity_constraint_violation OR data_exception OR SQLSTATE 'AI409' OR SQLSTATE 'AI422' THEN
    RAISE WARNING 'auction %: %', a.id, SQLERRM;
    UPDATE marketplace_auction SET due_at = clock_timestamp() + interval '1 minute' WHERE id = a.id;
    PERFORM trading_announce('marketplace.auction_stuck', 'auction:' || a.id, jsonb_build_object('auction', a.id, 'why', SQLERRM));
    RETURN 'stuck';
  END;
END $$;

CREATE OR REPLACE FUNCTION bid_document(b marketplace_bid) RETURNS json LANGUAGE sql STABLE AS $$
  SELECT json_build_object('id', b.id, 'auction_id', b.auction_id, 'bidder', b.bidder_id, 'offer_id', b.offer_id, 'state', b.state,
    'price', ait_money(b.price), 'hold', ait_money(b.held), 'commitment', '0x' || encode(b.commitment, 'hex'), 'salt', '0x' || encode(b.salt, 'hex'),
    'order_id', CASE b.state WHEN 'won' THEN b.auction_id END, 'created_at', b.created_at)
$$;

-- p_bids: with the bids that were not withdrawn, else null in their place.
CREATE OR REPLACE FUNCTION auction_document(a marketplace_auction, p_bids boolean) RETURNS json LANGUAGE sql STABLE AS $$
  SELECT json_build_object('id', a.id, 'client', a.client_id, 'state', a.state, 'reason', nullif(a.reason, ''), 'kind', a.wants->'kind',
    'constraints', json_build_object('model', a.wants->'model', 'min_vram_gb', (a.wants->>'min_vram_mb')::float / 1024, 'region', a.wants->'region',
      'devices', a.wants->'devices', 'verified', a.wants->'verified', 'max_price', ait_money((a.wants->>'max_price')::numeric)),
    'seconds', a.seconds, 'ceiling', ait_money(a.ceiling), 'total', ait_money(a.ceiling * a.seconds), 'deposit', ait_money(a.deposit),
    'hold', ait_money(CASE WHEN a.sealed THEN a.ceiling * a.seconds ELSE a.deposit END), 'sealed', a.sealed, 'award', a.award,
    'failover', a.failover, 'reveal_seconds', a.reveal_seconds, 'closes_at', a.closes_at, 'reveal_until', a.reveal_until, 'award_until', a.award_until,
    'order_id', CASE a.state WHEN 'awarded' THEN a.id END, 'created_at', a.created_at,
    'bid_count', (SELECT count(*) FROM marketplace_bid WHERE auction_id = a.id AND state <> 'withdrawn'),
    'bids', CASE WHEN p_bids THEN (SELECT coalesce(json_agg(bid_document(b) ORDER BY b.price, b.created_at, b.id), '[]')
       FROM marketplace_bid b WHERE b.auction_id = a.id AND b.state <> 'withdrawn') END)
$$;

CREATE OR REPLACE FUNCTION auction_shown(p_auction uuid) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE a marketplace_auction;
BEGIN
  SELECT * INTO a FROM marketplace_auction WHERE id = p_auction;
  IF NOT FOUND THEN PERFORM trading_refuse(404, 'auction.unknown', 'there is no such auction'); END IF;
  RETURN auction_document(a, true)::text;
END $$;

-- A page, newest first. p_bidder: those that he bids in.
CREATE OR REPLACE FUNCTION auctions_page(p_state text, p_model text, p_client uuid, p_bidder uuid, p_before uuid, p_limit int) RETURNS text LANGUAGE sql STABLE AS $$
  WITH found AS (
    SELECT a.id, a, row_number() OVER (ORDER BY a.id DESC) AS nth FROM marketplace_auction a WHERE a.id IN (
      SELECT id FROM marketplace_auction WHERE (p_state IS NULL OR state = p_state) AND (p_model IS NULL OR lower(wants->>'model') = lower(p_model))
         AND (p_client IS NULL OR client_id = p_client) AND (p_before IS NULL OR id < p_before)
         AND (p_bidder IS NULL OR id IN (SELECT auction_id FROM marketplace_bid WHERE bidder_id = p_bidder))
       ORDER BY id DESC LIMIT p_limit + 1))
  SELECT json_build_object(
    'items', coalesce((SELECT json_agg(auction_document(a, false) ORDER BY nth) FROM found WHERE nth <= p_limit), '[]'),
    'next', (SELECT id FROM found WHERE nth = p_limit AND EXISTS (SELECT FROM found WHERE nth > p_limit)))::text
$$;

-- For the audit: holds say what auctions and bids say, and an awarded one has its order.
CREATE OR REPLACE FUNCTION audit_auctions() RETURNS SETOF text LANGUAGE sql STABLE AS $$
  SELECT a.id::text FROM marketplace_auction a LEFT JOIN trading_transfer h ON h.id = a.id LEFT JOIN marketplace_order o ON o.id = a.id
   WHERE (h.state = 'pending') IS DISTINCT FROM (a.settled_at IS NULL) OR h.amount <> a.ceiling * a.seconds
      OR (o.id IS NOT NULL) <> (a.state = 'awarded') OR o.rate > a.ceiling
      OR (a.state = 'awarded') <> EXISTS (SELECT FROM marketplace_bid b WHERE b.auction_id = a.id AND b.state = 'won' AND b.price = o.rate)
  UNION ALL
  SELECT b.id::text FROM marketplace_bid b LEFT JOIN trading_transfer h ON h.id = b.id
   WHERE h.amount IS DISTINCT FROM b.held OR h.state IS DISTINCT FROM CASE WHEN b.settled_at IS NULL THEN 'pending'
     WHEN b.state = 'forfeited' THEN 'posted' ELSE 'voided' END
$$;
