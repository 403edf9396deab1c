-- Licences for models and data: published by who uploaded the bytes, bought through the ledger, checked when a job names
-- the bytes. A licence lets its holder's jobs use an artifact; it never hands out the bytes.
-- Lock order: the sale by its id, then accounts by id in one call of the ledger.

-- p_total in proportion to p_weights, exactly: whole units, what is left over to the largest remainders, the first of equals.
CREATE OR REPLACE FUNCTION split_exactly(p_total numeric, p_weights numeric[]) RETURNS numeric[] LANGUAGE sql IMMUTABLE AS $$
  WITH given AS (SELECT o, CASE WHEN s.total = 0 THEN 1 ELSE w END AS w, CASE WHEN s.total = 0 THEN cardinality(p_weights) ELSE s.total END AS total
                   FROM unnest(p_weights) WITH ORDINALITY AS x(w, o), (SELECT sum(y) AS total FROM unnest(p_weights) y) s),
  cut AS (SELECT o, div(p_total * w, total) AS whole, row_number() OVER (ORDER BY (p_total * w) % total DESC, o) AS nth FROM given)
  SELECT array_agg(whole + CASE WHEN nth <= p_total - (SELECT sum(whole) FROM cut) THEN 1 ELSE 0 END ORDER BY o) FROM cut
$$;

CREATE OR REPLACE FUNCTION asset_document(a marketplace_asset) RETURNS json LANGUAGE sql STABLE AS $$
  SELECT json_build_object('id', a.id, 'owner', a.owner_id, 'artifact', encode(a.artifact, 'hex'), 'name', a.name, 'kind', a.kind,
    'listed', a.listed, 'verification', asset_verification(a), 'created_at', a.created_at,
    'plans', (SELECT coalesce(json_agg(json_build_object('id', p.id, 'type', p.type, 'terms', p.terms, 'rights', p.rights,
        'days', p.days, 'price', trading_money(p.price, 'AIT')) ORDER BY p.id), '[]') FROM marketplace_plan p WHERE p.asset_id = a.id),
    'royalties', (SELECT coalesce(json_agg(json_build_object('tier', r.tier, 'payee', r.payee_id, 'bps', r.bps) ORDER BY r.tier), '[]')
        FROM marketplace_royalty r WHERE r.asset_id = a.id))
$$;

-- One that is for sale, or one's own.
CREATE OR REPLACE FUNCTION asset_shown(p_user uuid, p_asset uuid) RETURNS text LANGUAGE plpgsql STABLE AS $$
DECLARE a marketplace_asset;
BEGIN
  SELECT * INTO a FROM marketplace_asset x WHERE x.id = p_asset AND (x.listed OR x.owner_id = p_user);
  IF NOT FOUND THEN PERFORM trading_refuse(404, 'asset.unknown', 'there is no such asset'); END IF;
  RETURN asset_document(a)::text;
END $$;

CREATE OR REPLACE FUNCTION assets_listed(p_before uuid, p_limit int) RETURNS text LANGUAGE sql STABLE AS $$
  WITH found AS (SELECT a.id, a, row_number() OVER (ORDER BY a.id DESC) AS nth FROM marketplace_asset a
                  WHERE a.listed AND (p_before IS NULL OR a.id < p_before) ORDER BY a.id DESC LIMIT p_limit + 1)
  SELECT json_build_object('items', coalesce((SELECT json_agg(asset_document(a) ORDER BY nth) FROM found WHERE nth <= p_limit), '[]'),
    'next', (SELECT id FROM found WHERE nth = p_limit AND EXISTS (SELECT FROM found WHERE nth > p_limit)))::text
$$;

-- p_said: {artifact, name, kind, reference, plans: [{type, terms, rights, days, units}], royalties: [{tier, payee, bps}]}.
CREATE OR REPLACE FUNCTION asset_publish(p_owner uuid, p_id uuid, p_said jsonb) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM gpu_artifact_grant g WHERE g.artifact_id = decode(p_said ->> 'artifact', 'hex') AND g.user_id = p_owner AND g.job IS NULL) THEN
    PERFORM trading_refuse(404, 'artifact.unknown', 'you uploaded no such artifact', 'artifact');
  ELSIF EXISTS (SELECT FROM jsonb_array_elements(p_said -> 'royalties') r LEFT JOIN accounts_user u ON u.id = (r ->> 'payee')::uuid AND u.is_active
                 WHERE u.id IS NULL) THEN
    PERFORM trading_refuse(422, 'royalty.payee', 'royalties go to users of this platform', 'royalties');
  ELSIF (SELECT count(*) <> count(DISTINCT r ->> 'tier') FROM jsonb_array_elements(p_said -> 'royalties') r) THEN
    PERFORM trading_refuse(422, 'royalty.tier', 'name each tier once', 'royalties');
  END IF;
  INSERT INTO marketplace_asset (id, owner_id, artifact, name, kind, reference, created_at)
  VALUES (p_id, p_owner, decode(p_said ->> 'artifact', 'hex'), p_said ->> 'name', p_said ->> 'kind', nullif(p_said -> 'reference', 'null'), clock_timestamp());
  INSERT INTO marketplace_plan (id, asset_id, type, terms, rights, days, price)
  SELECT uuidv7(), p_id, x ->> 'type', x ->> 'terms', ARRAY(SELECT jsonb_array_elements_text(x -> 'rights')), (x ->> 'days')::int, (x ->> 'units')::numeric
    FROM jsonb_array_elements(p_said -> 'plans') x;
  INSERT INTO marketplace_royalty (asset_id, tier, payee_id, bps)
  SELECT p_id, r ->> 'tier', (r ->> 'payee')::uuid, (r ->> 'bps')::int FROM jsonb_array_elements(p_said -> 'royalties') r;
  RETURN asset_shown(p_owner, p_id);
END $$;

-- No longer for sale; licences that were sold go on. A repeat changes nothing.
CREATE OR REPLACE FUNCTION asset_withdraw(p_owner uuid, p_asset uuid) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
  UPDATE marketplace_asset SET listed = false WHERE id = p_asset AND owner_id = p_owner;
  IF NOT FOUND THEN PERFORM trading_refuse(404, 'asset.unknown', 'you have no such asset'); END IF;
  RETURN asset_shown(p_owner, p_asset);
END $$;

-- Several of the owner's plans, of one asset each, at one price.
CREATE OR REPLACE FUNCTION bundle_publish(p_owner uuid, p_id uuid, p_name text, p_price numeric, p_plans uuid[]) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
BEGIN
  IF (SELECT count(DISTINCT a.id) FROM marketplace_plan p JOIN marketplace_asset a ON a.id = p.asset_id
       WHERE p.id = ANY (p_plans) AND a.owner_id = p_owner AND a.listed) <> cardinality(p_plans) THEN
    PERFORM trading_refuse(422, 'bundle.plans', 'name plans of different assets of yours that are for sale', 'plans');
  END IF;
  INSERT INTO marketplace_bundle (id, owner_id, name, price, plans) VALUES (p_id, p_owner, p_name, p_price, p_plans);
  RETURN json_build_object('id', p_id, 'name', p_name, 'price', trading_money(p_price, 'AIT'), 'plans', p_plans)::text;
END $$;

CREATE OR REPLACE FUNCTION licence_document(l marketplace_licence) RETURNS json LANGUAGE sql STABLE AS $$
  SELECT json_build_object('id', l.id, 'sale', l.sale_id, 'asset', l.asset_id, 'artifact', encode(a.artifact, 'hex'), 'holder', l.holder_id,
    'type', p.type, 'terms', p.terms, 'rights', p.rights, 'issued_at', l.issued_at, 'expires_at', l.expires_at,
    'revoked_at', l.revoked_at, 'reason', l.reason,
    'valid', l.revoked_at IS NULL AND (l.expires_at > clock_timestamp()) IS NOT FALSE)
    FROM marketplace_plan p, marketplace_asset a WHERE p.id = l.plan_id AND a.id = l.asset_id
$$;

CREATE OR REPLACE FUNCTION sale_document(p_sale uuid) RETURNS text LANGUAGE sql STABLE AS $$
  SELECT json_build_object('id', s.id, 'item', s.item, 'seller', s.seller_id, 'price', trading_money(s.price, 'AIT'),
    'fee', trading_money(s.fee, 'AIT'), 'created_at', s.created_at,
    'shares', (SELECT json_agg(json_build_object('asset', x.asset_id, 'tier', x.tier, 'payee', x.payee_id, 'amount', trading_money(x.amount, 'AIT'))
        ORDER BY x.asset_id, x.tier) FROM marketplace_sale_share x WHERE x.sale_id = s.id),
    'licences', (SELECT json_agg(licence_document(l) ORDER BY l.id) FROM marketplace_licence l WHERE l.sale_id = s.id))::text
    FROM marketplace_sale s WHERE s.id = p_sale
$$;

-- Pay for a plan or a bundle: the platform's fee, each tier's royalty and the owners' rest, in one call of the ledger.
-- The fee is of the price, rounded up; the assets of a bundle share the rest by the prices of their plans, and within an
-- asset the tiers by their basis points. Who buys pays no share to himself. One id pays once, however often it comes.
CREATE OR REPLACE FUNCTION licence_buy(p_buyer uuid, p_id uuid, p_item uuid) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE s marketplace_sale; planned uuid[]; cost numeric; seller uuid; rate bigint; charged numeric; bad text; purse bigint;
  credits bigint[]; amounts numeric[]; kinds text[];
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended(p_id::text, 13));
  SELECT * INTO s FROM marketplace_sale WHERE id = p_id;
  IF s.buyer_id = p_buyer AND s.item = p_item THEN RETURN sale_document(p_id);
  ELSIF s.id IS NOT NULL THEN PERFORM trading_refuse(409, 'sale.exists', 'this transaction id was used for another sale', 'id'); END IF;
  SELECT ARRAY[p.id], p.price INTO planned, cost FROM marketplace_plan p WHERE p.id = p_item;
  IF NOT FOUND THEN SELECT b.plans, b.price INTO planned, cost FROM marketplace_bundle b WHERE b.id = p_item; END IF;
  SELECT min(a.owner_id::text)::uuid INTO seller FROM marketplace_plan p JOIN marketplace_asset a ON a.id = p.asset_id
   WHERE p.id = ANY (planned) HAVING bool_and(a.listed);
  IF seller IS NULL THEN PERFORM trading_refuse(404, 'plan.unknown', 'there is no such plan or bundle for sale', 'item');
  ELSIF seller = p_buyer THEN PERFORM trading_refuse(422, 'licence.own', 'your own assets need no licence', 'item'); END IF;
  PERFORM reputation_require(p_buyer, 'buy', cost);
  rate := reputation_fee_bps(seller, parameter_value('fee_bps'));
  charged := div(cost * rate + 9999, 10000);
  INSERT INTO marketplace_sale (id, buyer_id, seller_id, item, price, fee_bps, fee, created_at)
  VALUES (p_id, p_buyer, seller, p_item, cost, rate, charged, clock_timestamp());
  WITH part AS (   -- of each asset
    SELECT p.asset_id, (split_exactly(cost - charged, array_agg(p.price) OVER w))[row_number() OVER w] AS amount
      FROM marketplace_plan p WHERE p.id = ANY (planned)
    WINDOW w AS (ORDER BY p.id ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING)),
  tier AS (
    SELECT asset_id, tier, payee_id, bps FROM marketplace_royalty WHERE asset_id IN (SELECT asset_id FROM part)
    UNION ALL SELECT x.asset_id, '', seller, 10000 - coalesce((SELECT sum(r.bps) FROM marketplace_royalty r WHERE r.asset_id = x.asset_id), 0) FROM part x)
  INSERT INTO marketplace_sale_share (sale_id, asset_id, tier, payee_id, amount)
  SELECT p_id, t.asset_id, t.tier, t.payee_id, (split_exactly(x.amount, array_agg(t.bps::numeric) OVER w))[row_number() OVER w]
    FROM tier t JOIN part x ON x.asset_id = t.asset_id
  WINDOW w AS (PARTITION BY t.asset_id ORDER BY t.tier ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING);
  SELECT array_agg(ledger_account(payee_id, 'AIT', 'available') ORDER BY payee_id, asset_id, tier),
         array_agg(amount ORDER BY payee_id, asset_id, tier),
         array_agg(CASE tier WHEN '' THEN 'licence.earning' ELSE 'licence.royalty' END ORDER BY payee_id, asset_id, tier)
    INTO credits, amounts, kinds FROM marketplace_sale_share WHERE sale_id = p_id AND payee_id <> p_buyer;
  purse := ledger_account(p_buyer, 'AIT', 'available');
  bad := trading_move(array_fill(purse, ARRAY[coalesce(cardinality(credits), 0) + 1]),
                      credits || ledger_account(NULL, 'AIT', 'fees', '', pg_backend_pid() % 16), amounts || charged, kinds || 'licence.fee'::text, p_id);
  IF bad = 'insufficient_funds' THEN
    PERFORM trading_refuse(409, 'payment.insufficient_funds', 'the available balance does not cover this price');
  ELSIF bad IS NOT NULL THEN
    RAISE EXCEPTION 'the ledger refused sale %: %', p_id, bad USING ERRCODE = 'integrity_constraint_violation';
  END IF;
  INSERT INTO marketplace_licence (id, sale_id, plan_id, asset_id, holder_id, issued_at, expires_at)
  SELECT uuidv7(), p_id, p.id, p.asset_id, p_buyer, t, t + p.days * interval '1 day' FROM marketplace_plan p, clock_timestamp() t WHERE p.id = ANY (planned);
  PERFORM trading_announce('marketplace.licence_sold', 'sale:' || p_id, jsonb_build_object('sale', p_id, 'buyer', p_buyer, 'seller', seller, 'item', p_item));
  RETURN sale_document(p_id);
END $$;

-- A page of the licences that somebody holds or sold, newest first.
CREATE OR REPLACE FUNCTION licences_of(p_user uuid, p_before uuid, p_limit int) RETURNS text LANGUAGE sql STABLE AS $$
  WITH found AS (SELECT l.id, l, row_number() OVER (ORDER BY l.id DESC) AS nth FROM marketplace_licence l JOIN marketplace_sale s ON s.id = l.sale_id
                  WHERE p_user IN (l.holder_id, s.seller_id) AND (p_before IS NULL OR l.id < p_before) ORDER BY l.id DESC LIMIT p_limit + 1)
  SELECT json_build_object('items', coalesce((SELECT json_agg(licence_document(l) ORDER BY nth) FROM found WHERE nth <= p_limit), '[]'),
    'next', (SELECT id FROM found WHERE nth = p_limit AND EXISTS (SELECT FROM found WHERE nth > p_limit)))::text
$$;

-- Does this holder's licence for an asset with these bytes allow this purpose now?
CREATE OR REPLACE FUNCTION licence_allows(p_user uuid, p_artifact bytea, p_purpose text) RETURNS boolean LANGUAGE sql STABLE AS $$
  SELECT EXISTS (
    SELECT FROM marketplace_licence l JOIN marketplace_asset a ON a.id = l.asset_id JOIN marketplace_plan p ON p.id = l.plan_id
     WHERE a.artifact = p_artifact AND l.holder_id = p_user AND l.revoked_at IS NULL AND (l.expires_at > clock_timestamp()) IS NOT FALSE
       AND CASE p.type WHEN 'commercial' THEN true WHEN 'research' THEN p_purpose = 'research'
                       WHEN 'educational' THEN p_purpose = 'education' ELSE p_purpose = ANY (p.rights) END)
$$;

-- Which of these artifacts the user's licences let his jobs name. Refuses for one that is for sale, and that he neither has
-- a grant for nor a licence.
CREATE OR REPLACE FUNCTION licence_cover(p_user uuid, p_hashes text[], p_purpose text) RETURNS text[] LANGUAGE plpgsql STABLE AS $$
DECLARE h text; covered text[] := '{}';
BEGIN
  FOREACH h IN ARRAY p_hashes LOOP
    CONTINUE WHEN NOT EXISTS (SELECT FROM marketplace_asset a WHERE a.artifact = decode(h, 'hex'))
      OR EXISTS (SELECT FROM gpu_artifact_grant g WHERE g.artifact_id = decode(h, 'hex') AND g.user_id = p_user);
    IF licence_allows(p_user, decode(h, 'hex'), p_purpose) THEN covered := covered || h;
    ELSIF EXISTS (SELECT FROM marketplace_asset a WHERE a.artifact = decode(h, 'hex') AND a.listed)
       OR EXISTS (SELECT FROM marketplace_licence l JOIN marketplace_asset a ON a.id = l.asset_id WHERE a.artifact = decode(h, 'hex') AND l.holder_id = p_user) THEN
      PERFORM trading_refuse(403, 'licence.required', format('no licence of yours allows %s use of artifact %s now', p_purpose, h), 'input');
    END IF;
  END LOOP;
  RETURN covered;
END $$;

-- The seller takes a licence back, from now on: what waits in the queue for its bytes is canceled and refunded.
CREATE OR REPLACE FUNCTION licence_revoke(p_seller uuid, p_licence uuid, p_reason text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE l marketplace_licence; bytes bytea; j uuid;
BEGIN
  SELECT x.* INTO l FROM marketplace_licence x JOIN marketplace_sale s ON s.id = x.sale_id AND s.seller_id = p_seller WHERE x.id = p_licence FOR UPDATE OF x;
  IF NOT FOUND THEN PERFORM trading_refuse(404, 'licence.unknown', 'you sold no such licence'); END IF;
  IF l.revoked_at IS NOT NULL THEN RETURN licence_document(l)::text; END IF;
  UPDATE marketplace_licence SET revoked_at = clock_timestamp(), reason = p_reason WHERE id = p_licence RETURNING * INTO l;
  SELECT artifact INTO bytes FROM marketplace_asset WHERE id = l.asset_id;
  IF NOT licence_allows(l.holder_id, bytes, (SELECT CASE type WHEN 'research' THEN type WHEN 'educational' THEN 'education' ELSE 'commercial' END
                                               FROM marketplace_plan WHERE id = l.plan_id)) AND NOT EXISTS (
       SELECT FROM gpu_artifact_grant g WHERE g.artifact_id = bytes AND g.user_id = l.holder_id) THEN
    FOR j IN SELECT x.id FROM gpu_job x WHERE x.client_id = l.holder_id AND x.state = 'queued' AND encode(bytes, 'hex') = ANY (x.artifacts) ORDER BY x.id LOOP
      PERFORM gpu_cancel(l.holder_id, j);
    END LOOP;
  END IF;
  PERFORM trading_announce('marketplace.licence_revoked', 'licence:' || l.id, jsonb_build_object('licence', l.id, 'holder', l.holder_id, 'reason', p_reason));
  RETURN licence_document(l)::text;
END $$;

-- What the last check of a model found; null while there was none.
CREATE OR REPLACE FUNCTION asset_verification(a marketplace_asset) RETURNS json LANGUAGE sql STABLE AS $$
  SELECT json_build_object('state', CASE r.state WHEN 'agrees' THEN 'verified' WHEN 'differs' THEN 'failed' WHEN 'nothing' THEN 'inconclusive' ELSE r.state END,
    'measured', r.measured, 'job', r.job, 'at', coalesce(r.ended_at, r.started_at)) FROM gpu_rerun r WHERE r.about = a.id ORDER BY r.number DESC LIMIT 1
$$;

-- Its owner has the model run on a miner of somebody else, on the reference input; he pays for the run.
CREATE OR REPLACE FUNCTION asset_check(p_owner uuid, p_asset uuid) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE a marketplace_asset; done int;
BEGIN
  SELECT * INTO a FROM marketplace_asset WHERE id = p_asset AND owner_id = p_owner FOR UPDATE;
  IF NOT FOUND THEN PERFORM trading_refuse(404, 'asset.unknown', 'you have no such asset');
  ELSIF a.reference IS NULL THEN PERFORM trading_refuse(422, 'asset.no_reference', 'a model is checked by its reference input and output');
  ELSIF EXISTS (SELECT FROM gpu_rerun r WHERE r.about = p_asset AND r.state = 'running') THEN
    PERFORM trading_refuse(409, 'asset.checking', 'this model is being checked already');
  END IF;
  SELECT count(*) INTO done FROM gpu_rerun r WHERE r.about = p_asset;
  IF rerun_start(p_owner, p_asset, done + 1, 'onnx.infer', a.reference -> 'input' || jsonb_build_object('model', encode(a.artifact, 'hex')), NULL,
       ARRAY[encode(a.artifact, 'hex')] || ARRAY(SELECT t ->> 'data' FROM jsonb_each(a.reference -> 'input' -> 'inputs') x(name, t) WHERE jsonb_typeof(t -> 'data') = 'string'),
       NULL, ARRAY[p_owner], NULL, 60000, a.reference -> 'expected', (a.reference ->> 'tolerance')::float8) IS NULL THEN
    PERFORM trading_refuse(409, 'rerun.no_miner', 'no miner of somebody else runs onnx.infer now');
  END IF;
  RETURN asset_shown(p_owner, p_asset);
END $$;
