-- Dynamic prices. A preset is a row of numbers, a strategy is a preset with the provider's bounds, and `strategy_price` computes the
-- price from a document of inputs and nothing else: whoever has the inputs of a change can compute it again. Formulas: docs/pricing.md.
-- Lock order: the miner, the offer, its strategy.

CREATE TABLE IF NOT EXISTS marketplace_preset (
  code varchar(24) PRIMARY KEY,
  anchor varchar(4) NOT NULL CHECK (anchor IN ('base', 'cost', 'last')),
  signal varchar(11) NOT NULL CHECK (signal IN ('none', 'demand', 'utilisation')),
  multiplier numeric(7, 4) NOT NULL CHECK (multiplier > 0),
  sensitivity numeric(7, 4) NOT NULL CHECK (sensitivity BETWEEN 0 AND 1),
  competition numeric(7, 4) NOT NULL CHECK (competition BETWEEN 0 AND 1),
  growth numeric(7, 4) NOT NULL CHECK (growth BETWEEN 0 AND 1),
  clock numeric(7, 4) NOT NULL CHECK (clock BETWEEN 0 AND 1),   -- weight of the hour of the week
  about text NOT NULL
);

CREATE TABLE IF NOT EXISTS marketplace_strategy (
  offer_id uuid PRIMARY KEY REFERENCES marketplace_offer ON DELETE CASCADE,
  preset_id varchar(24) NOT NULL REFERENCES marketplace_preset,
  base numeric(38, 0) NOT NULL CHECK (base > 0),
  cost numeric(38, 0) CHECK (cost > 0),
  margin_bps int NOT NULL CHECK (margin_bps BETWEEN 0 AND 100000),
  target_bps int NOT NULL CHECK (target_bps BETWEEN 0 AND 10000),
  floor numeric(38, 0) NOT NULL CHECK (floor > 0),
  ceiling numeric(38, 0) NOT NULL,
  step_bps int NOT NULL CHECK (step_bps BETWEEN 1 AND 5000),
  interval_seconds int NOT NULL CHECK (interval_seconds BETWEEN 60 AND 86400),
  frozen_until timestamptz,
  due_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  CONSTRAINT strategy_bounds CHECK (floor <= ceiling)
);
CREATE INDEX IF NOT EXISTS strategy_due ON marketplace_strategy (due_at);

-- Every price an offer had, and how a strategy came to it; `preset` NULL: its seller's own word.
CREATE TABLE IF NOT EXISTS marketplace_price_change (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  offer_id uuid NOT NULL REFERENCES marketplace_offer ON DELETE CASCADE,
  at timestamptz NOT NULL,
  before numeric(38, 0),
  after numeric(38, 0) NOT NULL CHECK (after > 0),
  preset varchar(24), inputs jsonb, factors jsonb,
  CONSTRAINT pricechange_explained CHECK (num_nulls(preset, inputs, factors) IN (0, 3))
);
CREATE INDEX IF NOT EXISTS pricechange_of_offer ON marketplace_price_change (offer_id, id DESC);

CREATE OR REPLACE FUNCTION market_seed() RETURNS void LANGUAGE sql AS $$
  INSERT INTO marketplace_preset (code, anchor, signal, multiplier, sensitivity, competition, growth, clock, about) VALUES
    ('fixed', 'base', 'none', 1, 0, 0, 0, 0, 'The base price.'),
    ('demand', 'base', 'demand', 1, 0.5, 0, 0, 0, 'The base price, more when the market is busy, less when it is idle.'),
    ('cost_plus', 'cost', 'none', 1, 0, 0, 0, 0, 'The provider''s cost and a margin.'),
    ('target_utilisation', 'last', 'utilisation', 1, 0.5, 0, 0, 0, 'The last price, up when the devices are used more than the target, down when less.'),
    ('aggressive_growth', 'base', 'demand', 0.85, 0.3, 0.4, 0.8, 1, 'Below the base to win customers.'),
    ('profit_maximization', 'base', 'demand', 1.25, 0.7, 0.2, 0.2, 1, 'Above the base, led by demand.'),
    ('market_balance', 'base', 'demand', 1, 0.5, 0.3, 0.5, 1, 'Demand and competitors in balance.'),
    ('competitive_response', 'base', 'demand', 0.95, 0.4, 0.6, 0.4, 1, 'Close to the competitors.'),
    ('demand_elasticity', 'base', 'demand', 1, 0.8, 0.3, 0.6, 1, 'Strongly led by demand.')
  ON CONFLICT DO NOTHING
$$;

-- The price of these inputs, with its factors. Whole units are cut down; factors have six digits, so the product is exact.
-- The step limits a change against the last price; the bounds hold over it. Unknown signals leave their factor at 1.
CREATE OR REPLACE FUNCTION strategy_price(p jsonb) RETURNS jsonb LANGUAGE plpgsql IMMUTABLE AS $$
DECLARE
  last numeric := p->>'last'; low numeric := p->>'floor'; high numeric := p->>'ceiling'; growth numeric := p->>'growth'; raw numeric; after numeric;
  anchor numeric := CASE p->>'anchor' WHEN 'cost' THEN (p->>'cost')::numeric WHEN 'last' THEN last ELSE (p->>'base')::numeric END;
  step numeric := div(last * (p->>'step_bps')::numeric, 10000);
  volatile boolean := coalesce((p->>'frozen')::boolean OR (p->>'volatility')::numeric > 0.5, false); f jsonb;
BEGIN
  f := jsonb_build_object(
    'multiplier', round((p->>'multiplier')::numeric * CASE WHEN p->>'anchor' = 'cost' THEN 1 + (p->>'margin_bps')::numeric / 10000 ELSE 1 END, 6),
    'demand', coalesce(CASE p->>'signal'
      WHEN 'demand' THEN round(1 + ((p->>'demand')::numeric - 0.5) * (p->>'sensitivity')::numeric, 6)
      WHEN 'utilisation' THEN round(1 + ((p->>'utilisation')::numeric - (p->>'target_bps')::numeric / 10000) * (p->>'sensitivity')::numeric, 6)
      END, 1),
    'competition', CASE WHEN p->>'competitor' IS NULL THEN 1     -- greatest() would take no notice of a NULL
      ELSE round(least(2, greatest(0.5, 1 + ((p->>'competitor')::numeric / anchor - 1) * (p->>'competition')::numeric)), 6) END,
    'time', round(1 + ((p->>'hour')::numeric - 1) * (p->>'clock')::numeric, 6),
    'growth', CASE WHEN growth > 0.5 THEN round(1 - (growth - 0.5) * 0.2, 6) ELSE 1 END);
  raw := trunc(anchor * (f->>'multiplier')::numeric * (f->>'demand')::numeric * (f->>'competition')::numeric * (f->>'time')::numeric
               * (f->>'growth')::numeric);
  after := least(high, greatest(low, CASE WHEN volatile THEN last ELSE least(last + step, greatest(last - step, raw)) END));
  RETURN jsonb_build_object('factors', f, 'raw', raw::text, 'price', after::text, 'frozen', volatile, 'limited_by', CASE
    WHEN volatile THEN 'breaker' WHEN after = raw THEN NULL WHEN after = high THEN 'max' WHEN after = low THEN 'min' ELSE 'step' END);
END $$;

-- Work and room for it: slots of miners that take work and have the model, how many are busy, and how many jobs wait for them
-- (counted up to the number of slots). Devices let under orders are busy.
CREATE OR REPLACE FUNCTION market_load(p_model text, p_region text, OUT slots numeric, OUT busy numeric, OUT waiting numeric) LANGUAGE plpgsql STABLE AS $$
DECLARE ids uuid[];
BEGIN
  SELECT coalesce(array_agg(m.id), '{}'), coalesce(sum(m.concurrency), 0) INTO ids, slots FROM gpu_miner m
   WHERE m.state IN ('online', 'suspect') AND (p_region IS NULL OR m.region = p_region)
     AND (p_model IS NULL OR EXISTS (SELECT FROM gpu_device d WHERE d.miner_id = m.id AND d.active AND lower(d.model) = lower(p_model)));
  SELECT least(slots, (SELECT count(*) FROM gpu_job j WHERE j.miner_id = ANY (ids) AND j.state IN ('leased', 'running'))
    + (SELECT count(*) FROM gpu_occupancy x JOIN gpu_device d ON d.id = x.device_id WHERE d.miner_id = ANY (ids) AND x.during @> statement_timestamp()))
    INTO busy;
  SELECT count(*) INTO waiting FROM (
    SELECT FROM gpu_job_class c JOIN gpu_job_queue q ON q.job_class_id = c.id
     WHERE (c.gpu_model IS NULL OR p_model IS NULL OR lower(c.gpu_model) IN (lower(p_model), 'nvidia/any')) AND q.expires_at > statement_timestamp()
       AND (c.region IS NULL OR p_region IS NULL OR c.region = p_region) AND (c.miner IS NULL OR c.miner = ANY (ids)) LIMIT slots::bigint) x;
END $$;

-- The share of the last hour in which an offer's miner worked for its slots, or its devices were let; the larger one.
CREATE OR REPLACE FUNCTION offer_utilisation(o marketplace_offer) RETURNS numeric LANGUAGE sql STABLE AS $$
  WITH past AS (SELECT statement_timestamp() - interval '1 hour' AS since, statement_timestamp() AS now)
  SELECT round(least(1, greatest(
    (SELECT coalesce(sum(extract(epoch FROM least(coalesce(j.finished_at, p.now), p.now) - greatest(j.started_at, p.since))), 0)
       FROM past p JOIN gpu_job j ON j.miner_id = o.miner_id AND j.started_at < p.now
        AND (j.state IN ('leased', 'running') OR j.finished_at > p.since)) / 3600 / m.concurrency,
    (SELECT coalesce(sum(extract(epoch FROM least(upper(x.during), p.now) - greatest(lower(x.during), p.since))), 0)
       FROM past p JOIN gpu_occupancy x ON x.during && tstzrange(p.since, p.now)
       JOIN marketplace_offer_device d ON d.device_id = x.device_id AND d.offer_id = o.id) / 3600 / o.device_count)), 6)
    FROM gpu_miner m WHERE m.id = o.miner_id
$$;

CREATE OR REPLACE FUNCTION strategy_inputs(s marketplace_strategy, o marketplace_offer) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_build_object('anchor', p.anchor, 'signal', p.signal, 'multiplier', p.multiplier, 'sensitivity', p.sensitivity,
    'competition', p.competition, 'growth', p.growth, 'clock', p.clock, 'base', s.base::text, 'last', o.price::text, 'cost', s.cost::text,
    'margin_bps', s.margin_bps, 'target_bps', s.target_bps, 'floor', s.floor::text, 'ceiling', s.ceiling::text, 'step_bps', s.step_bps,
    'frozen', coalesce(s.frozen_until > statement_timestamp(), false), 'utilisation', offer_utilisation(o),
    'demand', round((l.busy / nullif(l.slots, 0) + least(1, l.waiting / nullif(l.slots, 0))) / 2, 6),
    'competitor', (SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY x.price)::text FROM marketplace_offer x JOIN gpu_miner t ON t.id = x.miner_id
                    WHERE x.state = 'listed' AND lower(x.model) = lower(o.model) AND x.region = o.region AND t.owner_id <> m.owner_id),
    'hour', CASE WHEN extract(isodow FROM u.now) > 5 THEN 1.15 WHEN h.h BETWEEN 8 AND 19 THEN 1.2 WHEN h.h >= 20 OR h.h < 2 THEN 1.1
                 WHEN h.h < 6 THEN 0.8 ELSE 1 END,
    'volatility', (SELECT round(stddev_samp(x) / avg(x), 6) FROM unnest(market_medians(o.model, '', 24)) x HAVING count(*) >= 5))
    FROM gpu_miner m, marketplace_preset p, market_load(o.model, o.region) l, (SELECT statement_timestamp() AT TIME ZONE 'UTC' AS now) u,
         LATERAL (SELECT extract(hour FROM u.now) AS h) h
   WHERE m.id = o.miner_id AND p.code = s.preset_id
$$;

-- An offer's prices are noted by the row that changes. What its seller says becomes the base of its strategy.
CREATE OR REPLACE FUNCTION market_price_told() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE how jsonb := nullif(current_setting('market.pricing', true), '');
BEGIN
  INSERT INTO marketplace_price_change (offer_id, at, before, after, preset, inputs, factors)
  VALUES (NEW.id, clock_timestamp(), CASE WHEN TG_OP = 'UPDATE' THEN OLD.price END, NEW.price, how->>'preset', how->'inputs', how->'factors');
  IF how IS NULL AND TG_OP = 'UPDATE' THEN
    UPDATE marketplace_strategy SET base = NEW.price, updated_at = clock_timestamp() WHERE offer_id = NEW.id;
  END IF;
  RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER offer_priced AFTER INSERT ON marketplace_offer FOR EACH ROW EXECUTE FUNCTION market_price_told();
CREATE OR REPLACE TRIGGER offer_repriced AFTER UPDATE OF price ON marketplace_offer
  FOR EACH ROW WHEN (OLD.price IS DISTINCT FROM NEW.price) EXECUTE FUNCTION market_price_told();

-- Whose offer it is: the key's that registered its miner, or, where p_all, any key of its owner.
CREATE OR REPLACE FUNCTION offer_of_seller(p_user uuid, p_key uuid, p_all boolean, p_offer uuid) RETURNS marketplace_offer LANGUAGE plpgsql STABLE AS $$
DECLARE o marketplace_offer;
BEGIN
  SELECT x.* INTO o FROM marketplace_offer x JOIN gpu_miner m ON m.id = x.miner_id
   WHERE x.id = p_offer AND (m.key_id = p_key OR (p_all AND m.owner_id = p_user));
  IF NOT FOUND THEN PERFORM trading_refuse(404, 'offer.unknown', 'there is no such offer of yours'); END IF;
  RETURN o;
END $$;

CREATE OR REPLACE FUNCTION strategy_document(s marketplace_strategy, o marketplace_offer) RETURNS json LANGUAGE sql STABLE AS $$
  SELECT json_build_object('offer_id', o.id, 'strategy', s.preset_id, 'base', ait_money(s.base), 'cost', ait_money(s.cost), 'margin_bps', s.margin_bps,
    'target_bps', s.target_bps, 'min', ait_money(s.floor), 'max', ait_money(s.ceiling), 'step_bps', s.step_bps,
    'interval_seconds', s.interval_seconds, 'frozen_until', s.frozen_until, 'due_at', s.due_at, 'price', ait_money(o.price),
    'next', json_build_object('price', ait_money((x.how->>'price')::numeric), 'limited_by', x.how->>'limited_by', 'factors', x.how->'factors', 'inputs', x.inputs))
    FROM (SELECT i.inputs, strategy_price(i.inputs) AS how FROM (SELECT strategy_inputs(s, o) AS inputs) i) x
$$;

CREATE OR REPLACE FUNCTION strategy_shown(p_user uuid, p_key uuid, p_all boolean, p_offer uuid) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE o marketplace_offer := offer_of_seller(p_user, p_key, p_all, p_offer); s marketplace_strategy;
BEGIN
  SELECT * INTO s FROM marketplace_strategy WHERE offer_id = p_offer;
  IF NOT FOUND THEN PERFORM trading_refuse(404, 'strategy.unknown', 'this offer has no strategy: its price is what its seller says'); END IF;
  RETURN strategy_document(s, o);
END $$;

-- Give an offer a strategy; it is applied from the next run on. p_terms: {strategy, base?, cost?, margin_bps, target_bps, min, max, step_bps,
-- interval_seconds}, amounts as money.
CREATE OR REPLACE FUNCTION strategy_set(p_user uuid, p_key uuid, p_all boolean, p_offer uuid, p_terms jsonb) RETURNS text LANGUAGE plpgsql AS $$
DECLARE o marketplace_offer := offer_of_seller(p_user, p_key, p_all, p_offer); s marketplace_strategy; anchored text;
  anew numeric := (p_terms->'base'->>'amount')::numeric * 1e18; costs numeric := (p_terms->'cost'->>'amount')::numeric * 1e18;
  low numeric := (p_terms->'min'->>'amount')::numeric * 1e18; high numeric := (p_terms->'max'->>'amount')::numeric * 1e18;
BEGIN
  PERFORM 1 FROM gpu_miner WHERE id = o.miner_id FOR NO KEY UPDATE;
  SELECT * INTO o FROM marketplace_offer WHERE id = p_offer FOR UPDATE;
  IF o.state = 'delisted' THEN PERFORM trading_refuse(409, 'offer.delisted', 'this offer is delisted and cannot be changed'); END IF;
  SELECT anchor INTO anchored FROM marketplace_preset WHERE code = p_terms->>'strategy';
  IF NOT FOUND THEN PERFORM trading_refuse(422, 'strategy.preset', 'there is no such strategy', 'strategy'); END IF;
  IF anchored = 'cost' AND costs IS NULL THEN PERFORM trading_refuse(422, 'strategy.cost', 'say what a device second costs you', 'cost'); END IF;
  IF (low > 0 AND low <= high) IS NOT TRUE THEN
    PERFORM trading_refuse(422, 'strategy.bounds', 'min is more than nothing, and at most max', 'min');
  ELSIF anew <= 0 OR costs <= 0 THEN
    PERFORM trading_refuse(422, 'strategy.amount', 'an amount is more than nothing', 'base');
  END IF;
  INSERT INTO marketplace_strategy AS x (offer_id, preset_id, base, cost, margin_bps, target_bps, floor, ceiling, step_bps, interval_seconds, due_at, updated_at)
  SELECT o.id, t.strategy, coalesce(anew, o.price), costs, t.margin_bps, t.target_bps, low, high, t.step_bps, t.interval_seconds,
         now, now FROM jsonb_to_record(p_terms) AS t(strategy text, margin_bps int, target_bps int, step_bps int, interval_seconds int), clock_timestamp() now
  ON CONFLICT (offer_id) DO UPDATE SET preset_id = excluded.preset_id, base = excluded.base, cost = excluded.cost, margin_bps = excluded.margin_bps,
    target_bps = excluded.target_bps, floor = excluded.floor, ceiling = excluded.ceiling, step_bps = excluded.step_bps,
    interval_seconds = excluded.interval_seconds, due_at = excluded.due_at, updated_at = excluded.updated_at
  RETURNING * INTO s;
  RETURN strategy_document(s, o);
END $$;

-- Many at once, each on its own: what one refuses does not stop the others. A dry run does the same and takes it back.
CREATE OR REPLACE FUNCTION strategy_bulk(p_user uuid, p_key uuid, p_all boolean, p_body jsonb, p_dry boolean) RETURNS text LANGUAGE plpgsql AS $$
DECLARE u record; done jsonb := '[]'; shown text; said text; field text;
BEGIN
  PERFORM 1 FROM gpu_miner WHERE id IN (SELECT o.miner_id FROM jsonb_array_elements(p_body->'updates') x JOIN marketplace_offer o
    ON o.id = (x->>'offer_id')::uuid JOIN gpu_miner m ON m.id = o.miner_id AND (m.key_id = p_key OR (p_all AND m.owner_id = p_user)))
    ORDER BY id FOR NO KEY UPDATE;
  FOR u IN SELECT x.terms, x.o FROM jsonb_array_elements(p_body->'updates') WITH ORDINALITY AS x(terms, o) ORDER BY x.terms->>'offer_id', x.o LOOP
    BEGIN
      shown := strategy_set(p_user, p_key, p_all, (u.terms->>'offer_id')::uuid, u.terms);
      IF p_dry THEN RAISE EXCEPTION USING ERRCODE = 'AI000'; END IF;
      done := done || jsonb_build_object('at', u.o, 'offer_id', u.terms->'offer_id', 'code', 'ok', 'detail', NULL, 'effect', shown::jsonb);
    EXCEPTION WHEN OTHERS THEN
      IF SQLSTATE NOT LIKE 'AI%' THEN RAISE; END IF;
      GET STACKED DIAGNOSTICS said = PG_EXCEPTION_DETAIL;
      done := done || CASE WHEN SQLSTATE = 'AI000'
        THEN jsonb_build_object('at', u.o, 'offer_id', u.terms->'offer_id', 'code', 'ok', 'detail', NULL, 'effect', shown::jsonb)
        ELSE jsonb_build_object('at', u.o, 'offer_id', u.terms->'offer_id', 'code', SQLERRM, 'detail', said, 'effect', NULL) END;
    END;
  END LOOP;
  RETURN jsonb_build_object('dry_run', p_dry, 'items', coalesce((SELECT jsonb_agg(x - 'at' ORDER BY (x->>'at')::int) FROM jsonb_array_elements(done) x), '[]'))::text;
END $$;

-- Apply the strategy that is due first. What it did: changed | same | frozen | ruled | gone | stuck; NULL: none is due.
-- A rule of the market that forbids the new price keeps the old one. A broken one waits a minute and is told to the operator.
CREATE OR REPLACE FUNCTION strategy_next() RETURNS text LANGUAGE plpgsql AS $$
DECLARE s marketplace_strategy; o marketplace_offer; wanted marketplace_offer; inputs jsonb; how jsonb; did text;
BEGIN
  SELECT x.offer_id INTO s.offer_id FROM marketplace_strategy x WHERE x.due_at <= statement_timestamp() ORDER BY x.due_at LIMIT 1;
  IF NOT FOUND THEN RETURN NULL; END IF;
  BEGIN
    SELECT * INTO o FROM marketplace_offer WHERE id = s.offer_id;
    PERFORM 1 FROM gpu_miner WHERE id = o.miner_id FOR NO KEY UPDATE;
    SELECT * INTO o FROM marketplace_offer WHERE id = s.offer_id FOR UPDATE;
    SELECT * INTO s FROM marketplace_strategy WHERE offer_id = s.offer_id AND due_at <= statement_timestamp() FOR UPDATE;
    IF NOT FOUND THEN RETURN 'same'; END IF;     -- another worker was first
    IF o.state = 'delisted' THEN DELETE FROM marketplace_strategy WHERE offer_id = o.id; RETURN 'gone'; END IF;
    inputs := strategy_inputs(s, o);
    how := strategy_price(inputs);
    wanted := o;
    wanted.price := how->>'price';
    did := CASE WHEN wanted.price <> o.price AND (offer_blocked(wanted)).id IS NOT NULL THEN 'ruled' WHEN wanted.price <> o.price THEN 'changed'
                WHEN (how->>'frozen')::boolean THEN 'frozen' ELSE 'same' END;
    IF did = 'changed' THEN
      PERFORM set_config('market.pricing', jsonb_build_object('preset', s.preset_id, 'inputs', inputs, 'factors', how->'factors')::text, true);
      UPDATE marketplace_offer SET price = wanted.price, updated_at = clock_timestamp() WHERE id = o.id;
      PERFORM set_config('market.pricing', '', true);
    END IF;
    UPDATE marketplace_strategy SET due_at = clock_timestamp() + interval_seconds * interval '1 second',
           frozen_until = CASE WHEN (how->>'frozen')::boolean AND NOT (inputs->>'frozen')::boolean THEN clock_timestamp() + interval '1 hour'
                               ELSE s.frozen_until END WHERE offer_id = o.id;
    RETURN did;
  EXCEPTION WHEN OTHERS THEN
    RAISE WARNING 'strategy of offer %: %', s.offer_id, SQLERRM;
  END;
  UPDATE marketplace_strategy SET due_at = clock_timestamp() + interval '1 minute' WHERE offer_id = s.offer_id;
  RETURN 'stuck';
END $$;

-- For the console: what would happen now, and the last ten changes with all that led to them.
CREATE OR REPLACE FUNCTION strategy_told(p_offer uuid) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT json_build_object('next', strategy_document(s, o)->'next', 'changes', (SELECT coalesce(json_agg(to_jsonb(c) - 'offer_id' ORDER BY c.id DESC), '[]')
           FROM (SELECT * FROM marketplace_price_change WHERE offer_id = p_offer ORDER BY id DESC LIMIT 10) c))::text
    FROM marketplace_strategy s JOIN marketplace_offer o ON o.id = s.offer_id WHERE s.offer_id = p_offer
$$;

CREATE OR REPLACE FUNCTION market_presets() RETURNS text LANGUAGE sql STABLE AS $$
  SELECT json_build_object('items', coalesce(json_agg(json_build_object('code', code, 'anchor', anchor, 'signal', signal, 'multiplier', multiplier, 'sensitivity', sensitivity,
    'competition', competition, 'growth', growth, 'clock', clock, 'about', about) ORDER BY code), '[]'))::text FROM marketplace_preset
$$;

-- An offer's prices, newest first. Anybody may see them; what a strategy was told is its seller's own.
CREATE OR REPLACE FUNCTION offer_prices(p_user uuid, p_key uuid, p_all boolean, p_offer uuid, p_cursor bigint, p_limit int) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE own boolean;
BEGIN
  SELECT m.key_id = p_key OR (p_all AND m.owner_id = p_user) INTO own FROM marketplace_offer o JOIN gpu_miner m ON m.id = o.miner_id WHERE o.id = p_offer;
  IF NOT FOUND THEN PERFORM trading_refuse(404, 'offer.unknown', 'there is no such offer'); END IF;
  RETURN (WITH page AS (SELECT * FROM marketplace_price_change WHERE offer_id = p_offer AND (p_cursor IS NULL OR id < p_cursor) ORDER BY id DESC LIMIT p_limit + 1),
    shown AS (SELECT * FROM page ORDER BY id DESC LIMIT p_limit)
    SELECT json_build_object('items', coalesce(json_agg(json_build_object('id', id, 'at', at, 'before', ait_money(before), 'after', ait_money(after),
             'strategy', preset, 'told', CASE WHEN own AND preset IS NOT NULL THEN json_build_object('inputs', inputs, 'factors', factors) END) ORDER BY id DESC), '[]'),
             'next', CASE WHEN (SELECT count(*) FROM page) > p_limit THEN min(id) END) FROM shown)::text;
END $$;

-- What the market suggests to a seller, for each of his listed offers (200 at most). Codes: docs/pricing.md.
CREATE OR REPLACE FUNCTION market_advice(p_user uuid) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT json_build_object('items', coalesce(json_agg(json_build_object('offer_id', id, 'price', ait_money(price), 'demand', demand, 'supply', supply,
    'utilisation', used, 'volatility', volatility, 'median', ait_money(median), 'advice', CASE WHEN median IS NULL THEN 'insufficient_data'
      WHEN volatility > 0.25 THEN 'stabilise' WHEN demand > 0.8 AND supply < 0.4 THEN 'raise' WHEN used < 0.5 AND price > median THEN 'lower' ELSE 'keep' END,
    'strategy', CASE WHEN median IS NULL THEN NULL WHEN volatility > 0.25 THEN 'fixed' WHEN demand > 0.8 AND supply < 0.4 THEN 'profit_maximization'
      WHEN used < 0.5 AND price > median THEN 'competitive_response' END) ORDER BY id), '[]'))::text
    FROM (SELECT o.id, o.price, (i.x->>'demand')::numeric AS demand, round(1 - l.busy / nullif(l.slots, 0), 6) AS supply,
                 (i.x->>'utilisation')::numeric AS used, (i.x->>'volatility')::numeric AS volatility,
                 (SELECT p.p50 FROM marketplace_price p WHERE lower(p.model) = lower(o.model) AND p.region = '' AND p.source = 'traded' AND p.span = 'day'
                     AND p.hour > statement_timestamp() - interval '2 hours' ORDER BY p.hour DESC LIMIT 1) AS median
            FROM marketplace_offer o JOIN gpu_miner m ON m.id = o.miner_id CROSS JOIN LATERAL market_load(o.model, o.region) l
            CROSS JOIN LATERAL (SELECT strategy_inputs(s, o) AS x FROM (SELECT (jsonb_populate_record(NULL::marketplace_strategy,
              jsonb_build_object('offer_id', o.id, 'preset_id', 'demand'))).*) s) i
           WHERE m.owner_id = p_user AND o.state = 'listed' ORDER BY o.id LIMIT 200) f
$$;
