-- Rules of the market: a condition over an offer's facts, in three words: field, operator, value. No text of a rule is ever executed.

CREATE TABLE IF NOT EXISTS marketplace_condition_field (
  code varchar(20) PRIMARY KEY, kind varchar(7) NOT NULL CHECK (kind IN ('number', 'string', 'array', 'boolean')), about text NOT NULL
);
CREATE TABLE IF NOT EXISTS marketplace_condition_operator (
  code varchar(12) PRIMARY KEY,
  kinds varchar(7)[] NOT NULL,              -- of the field
  takes varchar(7) NOT NULL                 -- `same` as the field, or an array of it, or one string
);

CREATE OR REPLACE FUNCTION market_rule_seed() RETURNS void LANGUAGE sql AS $$
  INSERT INTO marketplace_condition_field (code, kind, about) VALUES
    ('price', 'number', 'AIT per device second'), ('price_to_median', 'number', 'price by the listed median of its model; absent without one'),
    ('model', 'string', 'of the devices'), ('region', 'string', 'of its miner'), ('memory_gb', 'number', 'of the smallest device'),
    ('device_count', 'number', 'devices'), ('kinds', 'array', 'job kinds'), ('verified', 'boolean', 'passed the hardware challenge'),
    ('sandbox', 'string', 'how the miner isolates jobs'), ('seller', 'string', 'id of the miner''s owner'), ('seller_days', 'number', 'age of its account in days')
  ON CONFLICT DO NOTHING;
  INSERT INTO marketplace_condition_operator (code, kinds, takes) VALUES
    ('eq', '{number,string,boolean}', 'same'), ('ne', '{number,string,boolean}', 'same'), ('lt', '{number}', 'same'), ('le', '{number}', 'same'),
    ('gt', '{number}', 'same'), ('ge', '{number}', 'same'), ('in', '{number,string}', 'array'), ('not_in', '{number,string}', 'array'),
    ('contains', '{array}', 'string'), ('lacks', '{array}', 'string')
  ON CONFLICT DO NOTHING
$$;

-- Does the value fit field and operator? Behind the table's constraint and the operator's form.
CREATE OR REPLACE FUNCTION market_rule_valid(p_field text, p_operator text, p_value jsonb) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT EXISTS (SELECT FROM marketplace_condition_field f, marketplace_condition_operator o
    WHERE f.code = p_field AND o.code = p_operator AND f.kind = ANY (o.kinds)
      AND jsonb_typeof(p_value) = CASE o.takes WHEN 'same' THEN f.kind ELSE o.takes END
      AND (o.takes <> 'array' OR NOT EXISTS (SELECT FROM jsonb_array_elements(CASE WHEN jsonb_typeof(p_value) = 'array' THEN p_value ELSE '[]' END) e
                                              WHERE jsonb_typeof(e) <> f.kind)))
$$;

CREATE TABLE IF NOT EXISTS marketplace_rule (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name varchar(60) NOT NULL UNIQUE,
  category varchar(10) NOT NULL CHECK (category IN ('pricing', 'quality', 'compliance')),
  effect varchar(11) NOT NULL CHECK (effect IN ('warning', 'restriction', 'ban')),
  field varchar(20) NOT NULL REFERENCES marketplace_condition_field,
  operator varchar(12) NOT NULL REFERENCES marketplace_condition_operator,
  value jsonb NOT NULL,
  message varchar(200) NOT NULL,
  active boolean NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE OR REPLACE FUNCTION market_rule_guard() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NOT market_rule_valid(NEW.field, NEW.operator, NEW.value) THEN
    RAISE EXCEPTION 'rule %: this value does not fit its field and operator', NEW.name USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER rule_valid BEFORE INSERT OR UPDATE ON marketplace_rule FOR EACH ROW EXECUTE FUNCTION market_rule_guard();

CREATE OR REPLACE FUNCTION offer_facts(o marketplace_offer) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT jsonb_strip_nulls(jsonb_build_object('price', o.price * 1e-18, 'model', o.model, 'region', o.region, 'memory_gb', round(o.memory_mb / 1024.0, 3),
    'device_count', o.device_count, 'kinds', to_jsonb(o.kinds), 'verified', o.verified, 'sandbox', m.sandbox, 'seller', m.owner_id,
    'seller_days', floor(extract(epoch FROM statement_timestamp() - u.created_at) / 86400),
    'price_to_median', round(o.price / (SELECT p.p50 FROM marketplace_price p WHERE lower(p.model) = lower(o.model) AND p.region = '' AND p.source = 'listed'
       AND p.span = 'hour' AND p.hour > statement_timestamp() - interval '2 hours' ORDER BY p.hour DESC LIMIT 1), 6)))
    FROM gpu_miner m JOIN accounts_user u ON u.id = m.owner_id WHERE m.id = o.miner_id
$$;

-- A fact that is absent fits no condition.
CREATE OR REPLACE FUNCTION market_rule_holds(r marketplace_rule, p_facts jsonb) RETURNS boolean LANGUAGE sql IMMUTABLE AS $$
  SELECT coalesce(CASE r.operator WHEN 'eq' THEN f = r.value WHEN 'ne' THEN f <> r.value WHEN 'lt' THEN f < r.value WHEN 'le' THEN f <= r.value
    WHEN 'gt' THEN f > r.value WHEN 'ge' THEN f >= r.value WHEN 'in' THEN r.value @> f WHEN 'not_in' THEN NOT r.value @> f
    WHEN 'contains' THEN f @> r.value WHEN 'lacks' THEN NOT f @> r.value END, false) FROM (SELECT p_facts->r.field AS f) x
$$;

-- The first active rule that forbids this offer as it is; NULL: none.
CREATE OR REPLACE FUNCTION offer_blocked(o marketplace_offer) RETURNS marketplace_rule LANGUAGE sql STABLE AS $$
  SELECT r FROM marketplace_rule r WHERE r.active AND r.effect IN ('restriction', 'ban') AND market_rule_holds(r, offer_facts(o)) ORDER BY r.id LIMIT 1
$$;

-- Refuses a listed offer that an active rule forbids, by the rule's name; called in the transaction that lists or changes it.
CREATE OR REPLACE FUNCTION offer_check(p_offer uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE r marketplace_rule;
BEGIN
  SELECT (offer_blocked(o)).* INTO r FROM marketplace_offer o WHERE o.id = p_offer AND o.state = 'listed';
  IF r.id IS NOT NULL THEN PERFORM trading_refuse(422, 'offer.rule', format('rule "%s": %s', r.name, r.message), r.field); END IF;
END $$;

-- How an offer stands with the market's rules and its region; for its page, and for whoever chooses among offers.
CREATE OR REPLACE FUNCTION offer_standing(p_offer uuid) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE o marketplace_offer;
BEGIN
  SELECT * INTO o FROM marketplace_offer WHERE id = p_offer;
  IF NOT FOUND THEN PERFORM trading_refuse(404, 'offer.unknown', 'there is no such offer'); END IF;
  RETURN (SELECT json_build_object('offer_id', o.id, 'region', o.region, 'region_open', (region_terms(o.region)).open, 'flags', coalesce(
    json_agg(json_build_object('rule', r.name, 'category', r.category, 'effect', r.effect, 'message', r.message) ORDER BY r.id), '[]'))
    FROM marketplace_rule r WHERE r.active AND market_rule_holds(r, offer_facts(o)));
END $$;

-- Offers on the market that an active ban forbids, with the rule's name.
CREATE OR REPLACE FUNCTION offers_banned(p_limit int) RETURNS TABLE (offer uuid, rule text) LANGUAGE sql STABLE AS $$
  SELECT o.id, r.name FROM marketplace_offer o CROSS JOIN LATERAL (
    SELECT r.* FROM marketplace_rule r WHERE r.active AND r.effect = 'ban' AND market_rule_holds(r, offer_facts(o)) ORDER BY r.id LIMIT 1) r
   WHERE o.state IN ('listed', 'paused') AND EXISTS (SELECT FROM marketplace_rule WHERE active AND effect = 'ban') ORDER BY o.miner_id, o.id LIMIT p_limit
$$;
