-- The units of a job that the platform counts from its input (protocols 13), NULL for kinds without a counter of their own;
-- tokens are counted beside the result. Recordings are mono with 16 bits: their length follows from their bytes, less the
-- 44 of a plain header, whatever that header says.
CREATE OR REPLACE FUNCTION gpu_counted(p_kind text, p_input jsonb) RETURNS jsonb LANGUAGE sql STABLE AS $$
  SELECT CASE p_kind
    WHEN 'vision.ocr' THEN jsonb_build_object('counted', jsonb_build_object('unit', 'page', 'amount', 1))
    WHEN 'audio.vad' THEN (
      SELECT jsonb_build_object('counted', jsonb_build_object('unit', 'audio_second', 'amount',
               round(greatest(a.size - 44, 0) / (2.0 * (p_input->>'sample_rate')::int), 3)))
        FROM gpu_artifact a WHERE a.sha256 = decode(p_input->>'audio', 'hex')) END
$$;
