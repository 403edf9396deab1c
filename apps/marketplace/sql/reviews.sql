-- Reviews: after a completed deal, one of each party about the other. Only approved ones count, and at once.
-- Lock order: the review, then its subject's reputation.

CREATE OR REPLACE FUNCTION review_facts(v marketplace_review) RETURNS jsonb LANGUAGE sql IMMUTABLE AS $$
  SELECT jsonb_build_object('weight', v.weight, 'overall', v.overall, 'performance', v.performance)
$$;

CREATE OR REPLACE FUNCTION review_document(v marketplace_review) RETURNS json LANGUAGE sql STABLE AS $$
  SELECT json_build_object('id', v.id, 'deal', v.deal, 'author', v.author_id, 'subject', v.subject_id, 'state', v.state,
    'ratings', json_build_object('overall', v.overall, 'performance', v.performance, 'communication', v.communication,
      'reliability', v.reliability, 'value', v.value),
    'text', v.text, 'tags', v.tags, 'created_at', v.created_at, 'edited_at', v.edited_at)
$$;

-- Bring the subject's score in line with a review that counted before, or counts now.
CREATE OR REPLACE FUNCTION review_count(v marketplace_review, p_before text, p_now text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF p_now = 'approved' THEN PERFORM reputation_note(v.subject_id, 'review.counted', v.id, review_facts(v));
  ELSIF p_before = 'approved' THEN PERFORM reputation_note(v.subject_id, 'review.removed', v.id, '{}'); END IF;
END $$;

CREATE OR REPLACE FUNCTION review_fresh_state() RETURNS text LANGUAGE sql STABLE AS $$
  SELECT CASE WHEN parameter_value('review_auto_approve') = 1 THEN 'approved' ELSE 'pending' END
$$;

-- p_said: {ratings: {...}, text, tags}, as the edge checked it.
CREATE OR REPLACE FUNCTION review_write(p_author uuid, p_id uuid, p_deal uuid, p_said jsonb) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE d marketplace_deal; v marketplace_review; said jsonb := p_said -> 'ratings';
BEGIN
  SELECT * INTO d FROM marketplace_deal x WHERE x.id = p_deal AND x.ok AND p_author IN (x.client, x.provider);
  IF NOT FOUND THEN PERFORM trading_refuse(403, 'review.no_deal', 'review whom you completed a deal with'); END IF;
  INSERT INTO marketplace_review (id, deal, author_id, subject_id, overall, performance, communication, reliability, value, text,
                                  tags, weight, state, created_at)
  VALUES (p_id, p_deal, p_author, CASE WHEN p_author = d.client THEN d.provider ELSE d.client END, (said ->> 'overall')::int,
          (said ->> 'performance')::int, (said ->> 'communication')::int, (said ->> 'reliability')::int, (said ->> 'value')::int,
          coalesce(p_said ->> 'text', ''), ARRAY(SELECT jsonb_array_elements_text(nullif(p_said -> 'tags', 'null'))),
          least(10, greatest(0.1, round(d.amount / 1e18, 6))), review_fresh_state(), clock_timestamp())
  ON CONFLICT ON CONSTRAINT review_once DO NOTHING RETURNING * INTO v;
  IF v.id IS NULL THEN PERFORM trading_refuse(409, 'review.exists', 'you reviewed this deal already: change that review'); END IF;
  PERFORM review_count(v, NULL, v.state);
  RETURN review_document(v)::text;
END $$;

CREATE OR REPLACE FUNCTION review_locked(p_author uuid, p_id uuid) RETURNS marketplace_review LANGUAGE plpgsql AS $$
DECLARE v marketplace_review;
BEGIN
  SELECT * INTO v FROM marketplace_review WHERE id = p_id AND author_id = p_author FOR UPDATE;
  IF NOT FOUND THEN PERFORM trading_refuse(404, 'review.unknown', 'you wrote no such review'); END IF;
  RETURN v;
END $$;

-- What is left out stays; a changed review is moderated anew.
CREATE OR REPLACE FUNCTION review_edit(p_author uuid, p_id uuid, p_said jsonb) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE v marketplace_review := review_locked(p_author, p_id); before text := v.state; said jsonb := p_said -> 'ratings';
BEGIN
  UPDATE marketplace_review r SET
      overall = coalesce((said ->> 'overall')::int, overall), performance = coalesce((said ->> 'performance')::int, performance),
      communication = coalesce((said ->> 'communication')::int, communication), reliability = coalesce((said ->> 'reliability')::int, reliability),
      value = coalesce((said ->> 'value')::int, value), text = coalesce(p_said ->> 'text', text),
      tags = CASE WHEN jsonb_typeof(p_said -> 'tags') = 'array' THEN ARRAY(SELECT jsonb_array_elements_text(p_said -> 'tags')) ELSE tags END,
      state = review_fresh_state(), edited_at = clock_timestamp(), moderated_by_id = NULL
   WHERE r.id = p_id RETURNING * INTO v;
  PERFORM review_count(v, before, v.state);
  RETURN review_document(v)::text;
END $$;

CREATE OR REPLACE FUNCTION review_delete(p_author uuid, p_id uuid) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE v marketplace_review := review_locked(p_author, p_id);
BEGIN
  DELETE FROM marketplace_review WHERE id = p_id;
  PERFORM review_count(v, v.state, NULL);
  RETURN review_document(v)::text;
END $$;

-- An operator's word: approved or rejected.
CREATE OR REPLACE FUNCTION review_moderate(p_operator uuid, p_id uuid, p_state text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
DECLARE v marketplace_review;
BEGIN
  SELECT * INTO v FROM marketplace_review WHERE id = p_id FOR UPDATE;
  IF NOT FOUND THEN PERFORM trading_refuse(404, 'review.unknown', 'its author took this review back');
  ELSIF p_operator IN (v.author_id, v.subject_id) THEN
    PERFORM trading_refuse(403, 'review.own', 'nobody moderates a review of his own');
  ELSIF v.state = p_state THEN RETURN; END IF;
  UPDATE marketplace_review SET state = p_state, moderated_by_id = p_operator WHERE id = p_id;
  PERFORM review_count(v, v.state, p_state);
END $$;

-- A page of the approved ones about p_subject, or (NULL) of all that p_viewer wrote; newest first.
CREATE OR REPLACE FUNCTION reviews_of(p_viewer uuid, p_subject uuid, p_before uuid, p_limit int) RETURNS text LANGUAGE sql STABLE AS $$
  WITH found AS (
    SELECT v.id, v, row_number() OVER (ORDER BY v.id DESC) AS nth FROM marketplace_review v
     WHERE (p_before IS NULL OR v.id < p_before)
       AND CASE WHEN p_subject IS NULL THEN v.author_id = p_viewer ELSE v.subject_id = p_subject AND v.state = 'approved' END
     ORDER BY v.id DESC LIMIT p_limit + 1)
  SELECT json_build_object(
    'items', coalesce((SELECT json_agg(review_document(v) ORDER BY nth) FROM found WHERE nth <= p_limit), '[]'),
    'next', (SELECT id FROM found WHERE nth = p_limit AND EXISTS (SELECT FROM found WHERE nth > p_limit)))::text
$$;
