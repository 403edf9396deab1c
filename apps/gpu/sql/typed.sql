-- What the cheapest miner online now asks for these seconds of jobs of this kind, with these models and this memory.
CREATE OR REPLACE FUNCTION gpu_service_price(p_kind text, p_models varchar[], p_vram_gb int, p_seconds int) RETURNS text
LANGUAGE sql STABLE AS $$
  SELECT ait_money(min(m.price) * p_seconds)->>'amount' FROM gpu_miner m
   WHERE m.state = 'online' AND p_kind = ANY (m.kinds) AND p_models <@ m.model_names
     AND (p_vram_gb IS NULL OR EXISTS (
       SELECT 1 FROM gpu_device d WHERE d.miner_id = m.id AND d.active AND d.memory_mb >= p_vram_gb * 1024))
$$;
