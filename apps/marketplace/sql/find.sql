-- A page of a search. p_where and p_class are made by the filter's compiler: text of ours over an alias `o`, with the
-- values that it compares with in p_values, always the parameter $1. Nothing that a user wrote is in any statement.

-- The page's statement, with $2 the classes that can fit (NULL: all), $3 and $4 key and id of the cursor. Three ways lead
-- through a million offers: look up the few that fit and sort them; walk the classes of devices that can fit, each in the
-- order wanted; walk all in that order, up to a bound, and look up the rest. The planner's own estimate decides.
CREATE OR REPLACE FUNCTION marketplace_way(
  p_where text, p_class text, p_values text[], p_listed boolean, p_sort text, p_key text, p_last uuid, p_most int, p_few float8, p_walk float8,
  OUT statement text, OUT classes int[]) LANGUAGE plpgsql AS $$
DECLARE
  k text; kind text; way text; last text; after text; place text; outer_place text; lookup text; walk text; plan json;
  known int; offers float8; fitting float8; per int;
BEGIN
  SELECT s.k, s.kind, s.way, s.last INTO STRICT k, kind, way, last FROM (VALUES
    ('score', 'o.score', 'float8', 'DESC', '-Infinity'), ('price', 'o.price', 'numeric', 'ASC', 'Infinity'),
    ('-price', 'o.price', 'numeric', 'DESC', '-Infinity'), ('memory', 'o.memory_mb', 'int8', 'DESC', '-1'),
    ('price_per_tflops', 'coalesce(o.price_per_tflops, ''Infinity'')', 'float8', 'ASC', 'Infinity'),
    ('reliability', 'coalesce(o.reliability, -1)', 'float8', 'DESC', '-Infinity'),
    ('newest', 'o.id', 'uuid', 'DESC', '00000000-0000-0000-0000-000000000000')) AS s(sort, k, kind, way, last) WHERE s.sort = p_sort;
  BEGIN
    EXECUTE format('SELECT %L::%s', p_key, kind);
  EXCEPTION WHEN data_exception THEN
    PERFORM trading_refuse(422, 'request.cursor', 'this cursor is not one of ours', 'cursor');
  END;
  after := CASE WHEN p_key IS NULL THEN 'true' ELSE format('(%s, o.id) %s ($3::%s, $4)', k, CASE way WHEN 'ASC' THEN '>' ELSE '<' END, kind) END;
  place := format('ORDER BY %s %s, o.id %2$s', k, way);
  outer_place := format('ORDER BY key %s, id %1$s', way);

  EXECUTE format('SELECT coalesce(array_agg(id) FILTER (WHERE %s), ''{}''), count(*) FROM marketplace_offer_class o', p_class)
     INTO classes, known USING p_values;
  IF known = cardinality(classes) THEN classes := NULL; END IF;
  SELECT greatest(reltuples, 1) * coalesce(cardinality(classes), known) / greatest(known, 1) INTO offers
    FROM pg_class WHERE oid = 'marketplace_offer'::regclass;
  EXECUTE 'EXPLAIN (FORMAT JSON) SELECT FROM marketplace_offer o WHERE ' || p_where INTO plan USING p_values;
  fitting := least((plan->0->'Plan'->>'Plan Rows')::float8, offers);

  lookup := format('SELECT %s AS key, o.id FROM marketplace_offer o WHERE %s AND %s', k, p_where, after);
  IF classes IS NOT NULL THEN
    p_where := p_where || ' AND o.class_id = ANY ($2)';
    walk := format('SELECT x.* FROM unnest($2) c CROSS JOIN LATERAL (%s AND o.class_id = c %%s %s LIMIT %%s) x %s LIMIT %s',
                   lookup, place, outer_place, p_most);
    lookup := lookup || ' AND o.class_id = ANY ($2)';
  END IF;
  per := 2 * (cardinality(classes) + p_most);
  IF cardinality(classes) = 0 THEN
    statement := 'page AS (SELECT 0 AS key, NULL::uuid AS id WHERE false)';
  ELSIF fitting <= p_few OR NOT p_listed THEN
    statement := format('found AS MATERIALIZED (%s), page AS (SELECT * FROM found %s LIMIT %s)', lookup, outer_place, p_most);
  ELSIF per * offers <= p_walk * fitting THEN
    -- A few of each class say how far the others need to be walked: up to the last key of a page of those.
    statement := format('first AS MATERIALIZED (%s), bound AS MATERIALIZED (SELECT coalesce(
        (SELECT key FROM first %s LIMIT 1 OFFSET %s), %L::%s) AS key), page AS (%s)',
      format(walk, '', per / cardinality(classes)), outer_place, p_most - 1, last, kind,
      format(walk, format('AND %s %s (SELECT key FROM bound)', k, CASE way WHEN 'ASC' THEN '<=' ELSE '>=' END), p_most));
  ELSE
    statement := format('head AS MATERIALIZED (SELECT %s AS key, o.id FROM (
        SELECT * FROM marketplace_offer o WHERE o.state = ''listed'' AND %s %s LIMIT %s) o WHERE %s %3$s LIMIT %6$s),
      rest AS MATERIALIZED (%7$s AND (SELECT count(*) FROM head) < %6$s),
      page AS (SELECT * FROM (SELECT * FROM head WHERE (SELECT count(*) FROM head) = %6$s UNION ALL SELECT * FROM rest) x %8$s LIMIT %6$s)',
      k, after, place, p_walk::bigint, p_where, p_most, lookup, outer_place);
  END IF;
  statement := format('WITH %s SELECT page.key::text AS key, page.id, marketplace_offer_json(o, d)::text AS document
    FROM page JOIN marketplace_offer o ON o.id = page.id CROSS JOIN LATERAL marketplace_offer_devices(o.id) d
    ORDER BY page.key %s, page.id %2$s', statement, way);
END $$;

-- The answer as JSON text: {items, next, total, explain}. One process and no compiler: a search is too short for them, and
-- pages cost what memory costs. p_base is what all must hold (true: a filter that speaks of states).
-- p_parts, told of as p_told (NULL: not asked for): how many fit each alone, and all the others; counts end at 1000.
CREATE OR REPLACE FUNCTION marketplace_find(
  p_filter text, p_class text, p_values text[], p_base text, p_sort text, p_key text, p_last text, p_limit int, p_count boolean,
  p_few int, p_walk int, p_told text, p_parts text[]) RETURNS text LANGUAGE plpgsql
  SET jit = off SET max_parallel_workers_per_gather = 0 SET random_page_cost = 1.1 AS $$
DECLARE way record; cursor_id uuid; items text[]; keys text[]; ids uuid[]; total bigint; fits bigint; without bigint; reasons jsonb[]; next text;
  p_where text := p_base || ' AND ' || p_filter;
BEGIN
  IF p_told IS NOT NULL AND cardinality(p_parts) > 16 THEN
    PERFORM trading_refuse(422, 'filter.too_many', 'at most 16 filters joined by and are explained', 'q');
  END IF;
  BEGIN
    cursor_id := p_last::uuid;
  EXCEPTION WHEN data_exception THEN
    PERFORM trading_refuse(422, 'request.cursor', 'this cursor is not one of ours', 'cursor');
  END;
  way := marketplace_way(p_where, p_class, p_values, p_base <> 'true', p_sort, p_key, cursor_id, p_limit + 1, p_few, p_walk);
  EXECUTE format('SELECT array_agg(document), array_agg(key), array_agg(id) FROM (%s) x', way.statement)
     INTO items, keys, ids USING p_values, way.classes, p_key, cursor_id;
  IF cardinality(items) > p_limit THEN
    next := rtrim(translate(encode(convert_to(json_build_array(p_sort, keys[p_limit], ids[p_limit])::text, 'UTF8'), 'base64'), E'+/\n', '-_'), '=');
  END IF;
  IF p_count THEN
    EXECUTE format('SELECT count(*) FROM marketplace_offer o WHERE %s AND ($2 IS NULL OR o.class_id = ANY ($2))', p_where)
       INTO total USING p_values, way.classes;
  END IF;
  FOR i IN 1..CASE WHEN p_told IS NULL THEN 0 ELSE cardinality(p_parts) END LOOP
    EXECUTE format('SELECT (SELECT count(*) FROM (SELECT FROM marketplace_offer o WHERE %s LIMIT 1000) x),
                           (SELECT count(*) FROM (SELECT FROM marketplace_offer o WHERE %s LIMIT 1000) x)', p_base || ' AND ' || p_parts[i],
      array_to_string(p_base || p_parts[:i - 1] || p_parts[i + 1:], ' AND '))
       INTO fits, without USING p_values;
    reasons[i] := (p_told::jsonb->(i - 1)) || jsonb_build_object('fits', fits, 'without', without);
  END LOOP;
  RETURN format('{"items":[%s],"next":%s,"total":%s,"explain":%s}', array_to_string(items[1:p_limit], ','),
    coalesce(to_json(next)::text, 'null'), coalesce(total::text, 'null'),
    CASE WHEN p_told IS NULL THEN 'null' ELSE to_json(coalesce(reasons, '{}'))::text END);
END $$;

-- Which of p_offers newly fit: they do now, and did not as they were, by p_before (rows as JSON, of those that were there).
CREATE OR REPLACE FUNCTION marketplace_newly(p_where text, p_values text[], p_offers uuid[], p_before jsonb[]) RETURNS uuid[]
LANGUAGE plpgsql AS $$
DECLARE found uuid[];
BEGIN
  EXECUTE format('SELECT array_agg(o.id) FROM marketplace_offer o WHERE o.id = ANY ($2) AND %s AND o.id NOT IN (
      SELECT o.id FROM unnest($3) was, LATERAL jsonb_populate_record(NULL::marketplace_offer, was) o WHERE %1$s)', p_where)
     INTO found USING p_values, p_offers, p_before;
  RETURN found;
END $$;

-- Try searches (p_searches, with their compiled filters and values as JSON) on what changed since the last time -> how many
-- of whom were told. The changes taken are gone with the transaction that told of them: none is lost or told twice.
CREATE OR REPLACE FUNCTION marketplace_match(p_searches uuid[], p_wheres text[], p_values text, p_limit int) RETURNS int
LANGUAGE plpgsql AS $$
DECLARE offers uuid[]; before jsonb[]; told int := 0; values_of text[];
BEGIN
  WITH oldest AS (SELECT offer_id FROM marketplace_offer_change ORDER BY at LIMIT p_limit FOR UPDATE SKIP LOCKED),
  taken AS (DELETE FROM marketplace_offer_change c USING oldest x WHERE c.offer_id = x.offer_id RETURNING c.*)
  SELECT array_agg(t.offer_id), coalesce(array_agg(t.before) FILTER (WHERE t.before IS NOT NULL), '{}') INTO offers, before FROM taken t;
  IF offers IS NULL THEN RETURN 0; END IF;
  FOR i IN 1..cardinality(p_searches) LOOP
    values_of := ARRAY(SELECT jsonb_array_elements_text(p_values::jsonb->(i - 1)));
    told := told + marketplace_search_tell(p_searches[i], marketplace_newly(p_wheres[i], values_of, offers, before));
  END LOOP;
  RETURN told;
END $$;
