-- What the search reads: columns computed from an offer's row, its class, indexes, and what changed since the last look.

-- A model's name as people write it: in any case, `_` for a space, without the maker's words before it.
CREATE OR REPLACE FUNCTION marketplace_model_key(p_model text) RETURNS text LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
  SELECT regexp_replace(lower(translate(p_model, '_', ' ')), '^((nvidia|amd|intel|geforce|radeon|instinct|tesla|quadro) +)+(?=.)', '')
$$;

-- AIT per TFLOPS and hour, and the score of docs/search.md: both from measurements only.
ALTER TABLE marketplace_offer
  ADD COLUMN IF NOT EXISTS class_id int NOT NULL DEFAULT 0,
  ADD COLUMN IF NOT EXISTS model_key text GENERATED ALWAYS AS (marketplace_model_key(model)) STORED,
  ADD COLUMN IF NOT EXISTS region_key text GENERATED ALWAYS AS (lower(region)) STORED,
  ADD COLUMN IF NOT EXISTS price_per_tflops float8 GENERATED ALWAYS AS (price::float8 * 3600e-18 / nullif(tflops, 0)) STORED,
  ADD COLUMN IF NOT EXISTS score float8 GENERATED ALWAYS AS (
    CASE WHEN tflops > 0 THEN 50 * 0.01 / (0.01 + price::float8 * 3600e-18 / tflops) ELSE 0 END
    + 30 * coalesce(reliability_low, 0) + CASE WHEN verified THEN 20 ELSE 0 END) STORED;

-- NULL is no spot, not reserved, any duration.
ALTER TABLE marketplace_offer
  ADD CONSTRAINT offer_spot_at_most_price CHECK (spot_price > 0 AND spot_price <= price),
  ADD CONSTRAINT offer_reserved_discount CHECK (reserved_discount_bps BETWEEN 1 AND 9999),
  ADD CONSTRAINT offer_durations_ordered CHECK (min_seconds > 0 AND max_seconds > 0 AND min_seconds <= max_seconds);

-- Classes: the kinds of device on offer, a few dozen rows. A search first finds the classes that can fit, and then walks
-- each of them in the order wanted: an order by price never passes through all the cheap cards that are too small. The
-- bounds of what was measured in a class only ever widen, so that hardly any write touches them.
CREATE TABLE IF NOT EXISTS marketplace_offer_class (
  id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  model text NOT NULL, model_key text GENERATED ALWAYS AS (marketplace_model_key(model)) STORED, device_kind text, memory_mb int NOT NULL,
  tflops_min float8, tflops_max float8, memory_gbps_min float8, memory_gbps_max float8, dl_score_min float8, dl_score_max float8,
  price_min numeric, price_max numeric,
  UNIQUE NULLS NOT DISTINCT (model, device_kind, memory_mb));

CREATE OR REPLACE FUNCTION marketplace_offer_classify() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE c marketplace_offer_class;
BEGIN
  LOOP
    SELECT * INTO c FROM marketplace_offer_class x
     WHERE x.model = lower(NEW.model) AND x.device_kind IS NOT DISTINCT FROM NEW.device_kind AND x.memory_mb = NEW.memory_mb;
    EXIT WHEN FOUND;
    INSERT INTO marketplace_offer_class (model, device_kind, memory_mb) VALUES (lower(NEW.model), NEW.device_kind, NEW.memory_mb)
    ON CONFLICT DO NOTHING;
  END LOOP;
  IF NEW.tflops NOT BETWEEN coalesce(c.tflops_min, 'Infinity') AND coalesce(c.tflops_max, '-Infinity')
     OR NEW.memory_gbps NOT BETWEEN coalesce(c.memory_gbps_min, 'Infinity') AND coalesce(c.memory_gbps_max, '-Infinity')
     OR NEW.price NOT BETWEEN coalesce(c.price_min, 'Infinity') AND coalesce(c.price_max, '-Infinity')
     OR NEW.dl_score NOT BETWEEN coalesce(c.dl_score_min, 'Infinity') AND coalesce(c.dl_score_max, '-Infinity') THEN
    UPDATE marketplace_offer_class x SET
      price_min = least(price_min, NEW.price), price_max = greatest(price_max, NEW.price),
      tflops_min = least(tflops_min, NEW.tflops), tflops_max = greatest(tflops_max, NEW.tflops),
      memory_gbps_min = least(memory_gbps_min, NEW.memory_gbps), memory_gbps_max = greatest(memory_gbps_max, NEW.memory_gbps),
      dl_score_min = least(dl_score_min, NEW.dl_score), dl_score_max = greatest(dl_score_max, NEW.dl_score) WHERE x.id = c.id;
  END IF;
  NEW.class_id := c.id;
  RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER offer_class BEFORE INSERT OR UPDATE OF model, device_kind, memory_mb, tflops, memory_gbps, dl_score, price
  ON marketplace_offer FOR EACH ROW EXECUTE FUNCTION marketplace_offer_classify();
UPDATE marketplace_offer SET model = model WHERE class_id = 0 AND state <> 'delisted';

-- Every order, over all that is listed and within a class; then what is worth looking up by itself.
CREATE INDEX IF NOT EXISTS offer_price ON marketplace_offer (price, id) WHERE state = 'listed';
CREATE INDEX IF NOT EXISTS offer_score ON marketplace_offer (score, id) WHERE state = 'listed';
CREATE INDEX IF NOT EXISTS offer_tflops_price ON marketplace_offer (coalesce(price_per_tflops, 'Infinity'), id) WHERE state = 'listed';
CREATE INDEX IF NOT EXISTS offer_reliability ON marketplace_offer (coalesce(reliability, -1), id) WHERE state = 'listed';
CREATE INDEX IF NOT EXISTS offer_memory ON marketplace_offer (memory_mb, id) WHERE state = 'listed';
CREATE INDEX IF NOT EXISTS offer_age ON marketplace_offer (id) WHERE state = 'listed';
CREATE INDEX IF NOT EXISTS offer_class_price ON marketplace_offer (class_id, price, id) WHERE state = 'listed';
CREATE INDEX IF NOT EXISTS offer_class_score ON marketplace_offer (class_id, score, id) WHERE state = 'listed';
CREATE INDEX IF NOT EXISTS offer_class_tflops_price ON marketplace_offer (class_id, coalesce(price_per_tflops, 'Infinity'), id)
  WHERE state = 'listed';
CREATE INDEX IF NOT EXISTS offer_class_reliability ON marketplace_offer (class_id, coalesce(reliability, -1), id) WHERE state = 'listed';
CREATE INDEX IF NOT EXISTS offer_class_age ON marketplace_offer (class_id, id) WHERE state = 'listed';
CREATE INDEX IF NOT EXISTS offer_region ON marketplace_offer (region_key) WHERE state = 'listed';
CREATE INDEX IF NOT EXISTS offer_cuda ON marketplace_offer (cuda) WHERE state = 'listed';
CREATE INDEX IF NOT EXISTS offer_speed ON marketplace_offer (tflops) WHERE state = 'listed';
CREATE INDEX IF NOT EXISTS offer_dl_score ON marketplace_offer (dl_score) WHERE state = 'listed';
CREATE INDEX IF NOT EXISTS offer_sure ON marketplace_offer (reliability) WHERE state = 'listed';
CREATE INDEX IF NOT EXISTS offer_spot ON marketplace_offer (spot_price) WHERE state = 'listed' AND spot_price IS NOT NULL;
CREATE INDEX IF NOT EXISTS offer_kinds ON marketplace_offer USING gin (kinds) WITH (fastupdate = off) WHERE state = 'listed';
CREATE INDEX IF NOT EXISTS offer_expiry ON marketplace_offer (expires_at) WHERE state IN ('listed', 'paused') AND expires_at IS NOT NULL;

-- Withdraw what has expired, each under its miner's lock as everywhere, oldest first -> how many.
CREATE OR REPLACE FUNCTION marketplace_expire(p_limit int) RETURNS int LANGUAGE plpgsql AS $$
DECLARE due record; gone marketplace_offer; n int := 0;
BEGIN
  FOR due IN SELECT id, miner_id FROM marketplace_offer
             WHERE state IN ('listed', 'paused') AND expires_at <= clock_timestamp() ORDER BY expires_at LIMIT p_limit LOOP
    PERFORM 1 FROM gpu_miner WHERE id = due.miner_id FOR NO KEY UPDATE;
    SELECT * INTO gone FROM marketplace_offer WHERE id = due.id AND state IN ('listed', 'paused') AND expires_at <= clock_timestamp() FOR UPDATE;
    CONTINUE WHEN NOT FOUND;
    INSERT INTO marketplace_offer_transition (offer_id, before, after, reason, note, at)
    VALUES (gone.id, gone.state, 'delisted', 'expired', '', clock_timestamp());
    UPDATE marketplace_offer SET state = 'delisted', reason = 'expired', updated_at = clock_timestamp() WHERE id = gone.id;
    n := n + 1;
  END LOOP;
  RETURN n;
END $$;

-- Saved searches, and the offers that came to match them.
CREATE TABLE IF NOT EXISTS marketplace_search (
  id uuid PRIMARY KEY DEFAULT uuidv7(), owner_id uuid NOT NULL REFERENCES accounts_user ON DELETE CASCADE, name varchar(100) NOT NULL,
  q varchar(4096) NOT NULL, alert boolean NOT NULL, created_at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE INDEX IF NOT EXISTS search_of_owner ON marketplace_search (owner_id);
CREATE INDEX IF NOT EXISTS search_alerts ON marketplace_search (id) WHERE alert;
CREATE TABLE IF NOT EXISTS marketplace_search_match (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, search_id uuid NOT NULL REFERENCES marketplace_search ON DELETE CASCADE,
  offer_id uuid NOT NULL REFERENCES marketplace_offer ON DELETE CASCADE, at timestamptz NOT NULL DEFAULT clock_timestamp(),
  UNIQUE (search_id, offer_id));
CREATE INDEX IF NOT EXISTS search_match_newest ON marketplace_search_match (search_id, id);
CREATE INDEX IF NOT EXISTS search_match_of_offer ON marketplace_search_match (offer_id);

-- What an offer was before it changed, kept only while somebody wants to be told: it matches newly when
-- it fits now and did not fit then.
CREATE TABLE IF NOT EXISTS marketplace_offer_change (offer_id uuid PRIMARY KEY, before jsonb, at timestamptz NOT NULL DEFAULT clock_timestamp());
CREATE OR REPLACE FUNCTION marketplace_offer_note() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT FROM marketplace_search WHERE alert) THEN
    INSERT INTO marketplace_offer_change (offer_id, before)
    VALUES (NEW.id, CASE WHEN TG_OP = 'UPDATE' THEN to_jsonb(OLD) END) ON CONFLICT DO NOTHING;
  END IF;
  RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER offer_noted AFTER INSERT ON marketplace_offer FOR EACH ROW
  WHEN (NEW.state = 'listed') EXECUTE FUNCTION marketplace_offer_note();
CREATE OR REPLACE TRIGGER offer_change_noted AFTER UPDATE ON marketplace_offer FOR EACH ROW
  WHEN (OLD.* IS DISTINCT FROM NEW.* AND NEW.state <> 'delisted') EXECUTE FUNCTION marketplace_offer_note();

CREATE OR REPLACE FUNCTION marketplace_search_document(s marketplace_search) RETURNS json LANGUAGE sql STABLE AS $$
  SELECT json_build_object('id', s.id, 'name', s.name, 'q', s.q, 'alert', s.alert, 'created_at', s.created_at)
$$;

-- At most 20 of one user, counted under his row's lock.
CREATE OR REPLACE FUNCTION marketplace_search_save(p_owner uuid, p_name text, p_q text, p_alert boolean) RETURNS text LANGUAGE plpgsql AS $$
DECLARE made marketplace_search;
BEGIN
  PERFORM 1 FROM accounts_user WHERE id = p_owner FOR NO KEY UPDATE;
  IF (SELECT count(*) FROM marketplace_search WHERE owner_id = p_owner) >= 20 THEN
    PERFORM trading_refuse(409, 'search.too_many', 'you keep 20 searches already: delete one first');
  END IF;
  INSERT INTO marketplace_search (owner_id, name, q, alert) VALUES (p_owner, p_name, p_q, p_alert) RETURNING * INTO made;
  RETURN marketplace_search_document(made)::text;
END $$;

CREATE OR REPLACE FUNCTION marketplace_searches(p_owner uuid) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT json_build_object('items', coalesce(json_agg(marketplace_search_document(s) ORDER BY s.id DESC), '[]'), 'next', NULL)::text
    FROM marketplace_search s WHERE s.owner_id = p_owner
$$;

CREATE OR REPLACE FUNCTION marketplace_search_delete(p_owner uuid, p_search uuid) RETURNS text LANGUAGE plpgsql AS $$
DECLARE gone marketplace_search;
BEGIN
  DELETE FROM marketplace_search WHERE id = p_search AND owner_id = p_owner RETURNING * INTO gone;
  IF gone.id IS NULL THEN PERFORM trading_refuse(404, 'search.unknown', 'you keep no such search'); END IF;
  RETURN marketplace_search_document(gone)::text;
END $$;

-- A page of what a search was told of, newest first; the cursor is the number of the last match.
CREATE OR REPLACE FUNCTION marketplace_search_matches(p_owner uuid, p_search uuid, p_before bigint, p_limit int) RETURNS text
LANGUAGE plpgsql STABLE AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM marketplace_search WHERE id = p_search AND owner_id = p_owner) THEN
    PERFORM trading_refuse(404, 'search.unknown', 'you keep no such search');
  END IF;
  RETURN (
    WITH found AS (
      SELECT m.id, m.at, o, row_number() OVER (ORDER BY m.id DESC) AS nth
        FROM marketplace_search_match m JOIN marketplace_offer o ON o.id = m.offer_id
       WHERE m.search_id = p_search AND (p_before IS NULL OR m.id < p_before) ORDER BY m.id DESC LIMIT p_limit + 1)
    SELECT json_build_object(
      'items', coalesce((SELECT json_agg(json_build_object('at', at, 'offer', marketplace_offer_document(o)) ORDER BY nth)
                           FROM found WHERE nth <= p_limit), '[]'),
      'next', (SELECT id FROM found WHERE nth = p_limit AND EXISTS (SELECT FROM found WHERE nth > p_limit)))::text);
END $$;

-- Write matches, each (search, offer) once for ever, and tell of the new ones -> how many.
CREATE OR REPLACE FUNCTION marketplace_search_tell(p_search uuid, p_offers uuid[]) RETURNS int LANGUAGE plpgsql AS $$
DECLARE s marketplace_search; told int;
BEGIN
  SELECT * INTO s FROM marketplace_search WHERE id = p_search FOR KEY SHARE;
  IF NOT FOUND THEN RETURN 0; END IF;
  WITH fresh AS (
    INSERT INTO marketplace_search_match (search_id, offer_id)
    SELECT s.id, o FROM unnest(p_offers) o ORDER BY o ON CONFLICT DO NOTHING RETURNING offer_id),
  told AS (
    SELECT webhooks_tell('search.matched', 'search:' || s.id, ARRAY[s.owner_id], jsonb_build_object(
             'search', jsonb_build_object('id', s.id, 'name', s.name), 'offer', marketplace_offer_document(o)::jsonb))
      FROM fresh JOIN marketplace_offer o ON o.id = fresh.offer_id)
  SELECT count(*) INTO told FROM told;
  RETURN told;
END $$;
