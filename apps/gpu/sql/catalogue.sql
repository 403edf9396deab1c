-- What known cards are: the vendors' public figures. TFLOPS are dense peaks; FP16 and BF16 of the tensor or matrix
-- cores, where there are any, with FP32 accumulation. docs/hardware.md says what is compared with them, and how.
CREATE OR REPLACE FUNCTION gpu_cards() RETURNS TABLE (
  model text, vendor text, architecture text, compute text, memory_gb int, fp32 float8, fp16 float8, bf16 float8,
  memory_gbps float8, watts int, names text
) LANGUAGE sql IMMUTABLE AS $$ VALUES
  ('GTX 1060 6GB', 'cuda', 'pascal', '6.1', 6, 4.4, 0.07, NULL, 192, 120, 'gtx 1060 6gb'),
  ('GTX 1080 Ti', 'cuda', 'pascal', '6.1', 11, 11.3, 0.18, NULL, 484, 250, 'gtx 1080 ti'),
  ('P100 PCIe 16GB', 'cuda', 'pascal', '6.0', 16, 9.3, 18.7, NULL, 732, 250, 'p100 pcie 16gb'),
  ('V100 PCIe 16GB', 'cuda', 'volta', '7.0', 16, 14.0, 112, NULL, 900, 250, 'v100 pcie 16gb'),
  ('V100 SXM2 16GB', 'cuda', 'volta', '7.0', 16, 15.7, 125, NULL, 900, 300, 'v100 sxm2 16gb'),
  ('V100 SXM2 32GB', 'cuda', 'volta', '7.0', 32, 15.7, 125, NULL, 900, 300, 'v100 sxm2 32gb|v100 sxm3 32gb'),
  ('GTX 1660', 'cuda', 'turing', '7.5', 6, 5.0, 10.0, NULL, 192, 120, 'gtx 1660'),
  ('GTX 1660 Ti', 'cuda', 'turing', '7.5', 6, 5.4, 10.9, NULL, 288, 120, 'gtx 1660 ti'),
  ('RTX 2060', 'cuda', 'turing', '7.5', 6, 6.5, 25.8, NULL, 336, 160, 'rtx 2060'),
  ('RTX 2080 Ti', 'cuda', 'turing', '7.5', 11, 13.4, 53.8, NULL, 616, 250, 'rtx 2080 ti'),
  ('T4', 'cuda', 'turing', '7.5', 16, 8.1, 65, NULL, 320, 70, 't4'),
  ('RTX 3060', 'cuda', 'ampere', '8.6', 12, 12.7, 25.5, 25.5, 360, 170, 'rtx 3060'),
  ('RTX 3060 Ti', 'cuda', 'ampere', '8.6', 8, 16.2, 32.4, 32.4, 448, 200, 'rtx 3060 ti'),
  ('RTX 3070', 'cuda', 'ampere', '8.6', 8, 20.3, 40.6, 40.6, 448, 220, 'rtx 3070'),
  ('RTX 3080', 'cuda', 'ampere', '8.6', 10, 29.8, 59.5, 59.5, 760, 320, 'rtx 3080'),
  ('RTX 3090', 'cuda', 'ampere', '8.6', 24, 35.6, 71, 71, 936, 350, 'rtx 3090'),
  ('RTX 3090 Ti', 'cuda', 'ampere', '8.6', 24, 40.0, 80, 80, 1008, 450, 'rtx 3090 ti'),
  ('RTX A4000', 'cuda', 'ampere', '8.6', 16, 19.2, 76.7, 76.7, 448, 140, 'rtx a4000'),
  ('RTX A5000', 'cuda', 'ampere', '8.6', 24, 27.8, 111, 111, 768, 230, 'rtx a5000'),
  ('RTX A6000', 'cuda', 'ampere', '8.6', 48, 38.7, 155, 155, 768, 300, 'rtx a6000'),
  ('A10', 'cuda', 'ampere', '8.6', 24, 31.2, 125, 125, 600, 150, 'a10'),
  ('A10G', 'cuda', 'ampere', '8.6', 24, 35.0, 70, 70, 600, 300, 'a10g'),
  ('A30', 'cuda', 'ampere', '8.0', 24, 10.3, 165, 165, 933, 165, 'a30'),
  ('A40', 'cuda', 'ampere', '8.6', 48, 37.4, 150, 150, 696, 300, 'a40'),
  ('A100 PCIe 40GB', 'cuda', 'ampere', '8.0', 40, 19.5, 312, 312, 1555, 250, 'a100 pcie 40gb'),
  ('A100 SXM4 40GB', 'cuda', 'ampere', '8.0', 40, 19.5, 312, 312, 1555, 400, 'a100 sxm4 40gb'),
  ('A100 PCIe 80GB', 'cuda', 'ampere', '8.0', 80, 19.5, 312, 312, 1935, 300, 'a100 80gb pcie|a100 pcie 80gb'),
  ('A100 SXM4 80GB', 'cuda', 'ampere', '8.0', 80, 19.5, 312, 312, 2039, 400, 'a100 sxm4 80gb'),
  ('RTX 4060', 'cuda', 'ada_lovelace', '8.9', 8, 15.1, 30.2, 30.2, 272, 115, 'rtx 4060'),
  ('RTX 4060 Ti', 'cuda', 'ada_lovelace', '8.9', 16, 22.1, 44.1, 44.1, 288, 160, 'rtx 4060 ti'),
  ('RTX 4070', 'cuda', 'ada_lovelace', '8.9', 12, 29.1, 58.3, 58.3, 504, 200, 'rtx 4070'),
  ('RTX 4070 Ti', 'cuda', 'ada_lovelace', '8.9', 12, 40.1, 80.2, 80.2, 504, 285, 'rtx 4070 ti'),
  ('RTX 4080', 'cuda', 'ada_lovelace', '8.9', 16, 48.7, 97.5, 97.5, 717, 320, 'rtx 4080'),
  ('RTX 4090', 'cuda', 'ada_lovelace', '8.9', 24, 82.6, 165, 165, 1008, 450, 'rtx 4090'),
  ('RTX 6000 Ada', 'cuda', 'ada_lovelace', '8.9', 48, 91.1, 364, 364, 960, 300, 'rtx 6000 ada generation|rtx 6000 ada'),
  ('L4', 'cuda', 'ada_lovelace', '8.9', 24, 30.3, 121, 121, 300, 72, 'l4'),
  ('L40', 'cuda', 'ada_lovelace', '8.9', 48, 90.5, 181, 181, 864, 300, 'l40'),
  ('L40S', 'cuda', 'ada_lovelace', '8.9', 48, 91.6, 362, 362, 864, 350, 'l40s'),
  ('H100 PCIe', 'cuda', 'hopper', '9.0', 80, 51.2, 756, 756, 2039, 350, 'h100 pcie'),
  ('H100 NVL', 'cuda', 'hopper', '9.0', 94, 60.0, 835, 835, 3938, 400, 'h100 nvl'),
  ('H100 SXM5', 'cuda', 'hopper', '9.0', 80, 66.9, 989, 989, 3352, 700, 'h100 80gb hbm3|h100 sxm|h100 sxm5|h100'),
  ('H200 SXM', 'cuda', 'hopper', '9.0', 141, 66.9, 989, 989, 4800, 700, 'h200|h200 sxm'),
  ('B200', 'cuda', 'blackwell', '10.0', 180, 75.0, 2250, 2250, 8000, 1000, 'b200'),
  ('RTX 5070', 'cuda', 'blackwell', '12.0', 12, 30.9, 61.7, 61.7, 672, 250, 'rtx 5070'),
  ('RTX 5080', 'cuda', 'blackwell', '12.0', 16, 56.3, 113, 113, 960, 360, 'rtx 5080'),
  ('RTX 5090', 'cuda', 'blackwell', '12.0', 32, 105, 209, 209, 1792, 575, 'rtx 5090'),
  ('MI100', 'rocm', 'cdna', 'gfx908', 32, 23.1, 185, 92.3, 1229, 300, 'mi100'),
  ('MI210', 'rocm', 'cdna2', 'gfx90a', 64, 22.6, 181, 181, 1638, 300, 'mi210'),
  ('MI250', 'rocm', 'cdna2', 'gfx90a', 128, 45.3, 362, 362, 3277, 560, 'mi250'),
  ('MI250X', 'rocm', 'cdna2', 'gfx90a', 128, 47.9, 383, 383, 3277, 560, 'mi250x'),
  ('MI300X', 'rocm', 'cdna3', 'gfx942', 192, 163, 1307, 1307, 5300, 750, 'mi300x'),
  ('RX 7900 XTX', 'rocm', 'rdna3', 'gfx1100', 24, 61.4, 123, 123, 960, 355, 'rx 7900 xtx')
$$;

-- The card of a name as drivers write it, such as "NVIDIA A100-SXM4-80GB"; no row: unknown.
CREATE OR REPLACE FUNCTION gpu_card_of(p_name text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT c.model FROM gpu_cards() c, trim(regexp_replace(regexp_replace(
           lower(p_name), '\m(nvidia|geforce|tesla|amd|instinct|radeon|oam)\M', '', 'g'), '[-\s]+', ' ', 'g')) AS n
   WHERE n = lower(c.model) OR n = ANY (string_to_array(c.names, '|')) LIMIT 1
$$;

CREATE OR REPLACE FUNCTION gpu_catalogue(p_architecture text, p_min_gb float8, p_q text, p_after text, p_most int)
RETURNS TABLE (model text, document text) LANGUAGE sql IMMUTABLE AS $$
  SELECT c.model, json_build_object(
    'model', c.model, 'kind', c.vendor, 'architecture', c.architecture, 'compute', c.compute, 'memory_gb', c.memory_gb,
    'fp32_tflops', c.fp32, 'fp16_tflops', c.fp16, 'bf16_tflops', c.bf16, 'memory_gbps', c.memory_gbps, 'power_w', c.watts)::text
    FROM gpu_cards() c
   WHERE (p_architecture IS NULL OR c.architecture = lower(p_architecture)) AND (p_min_gb IS NULL OR c.memory_gb >= p_min_gb)
     AND (p_q IS NULL OR c.model = gpu_card_of(p_q) OR strpos(lower(c.model), lower(p_q)) > 0) AND c.model COLLATE "C" > p_after COLLATE "C"
   ORDER BY c.model COLLATE "C" LIMIT p_most
$$;

-- What a device is taken for, by its claims and by what it delivered. A claim above what its model has, or a measurement
-- below 0.4 or above 1.3 times its figures, is doubted; so is a device that failed its last challenge.
CREATE OR REPLACE FUNCTION gpu_judge_device() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE c record; nearest text; wrong boolean := false; doubt text := '';
BEGIN
  SELECT * INTO c FROM gpu_cards() x WHERE x.vendor = NEW.kind AND x.model = gpu_card_of(NEW.model);
  IF NEW.tflops IS NOT NULL AND NEW.kind <> 'cpu' THEN
    SELECT x.model INTO nearest FROM gpu_cards() x WHERE x.vendor = NEW.kind AND x.model IS DISTINCT FROM c.model
     ORDER BY abs(NEW.tflops / x.fp32 - 1) + coalesce(abs(NEW.memory_gbps / x.memory_gbps - 1), 0) LIMIT 1;
    wrong := c.model IS NOT NULL AND (NEW.tflops / c.fp32 NOT BETWEEN 0.4 AND 1.3
                                      OR coalesce(NEW.memory_gbps / c.memory_gbps, 1) NOT BETWEEN 0.4 AND 1.3);
  END IF;
  IF c.model IS NOT NULL THEN
    doubt := CASE
      WHEN NEW.memory_mb > 1.1 * 1024 * c.memory_gb THEN format('the %s has %s GB of memory, not %s MiB', c.model, c.memory_gb, NEW.memory_mb)
      WHEN NEW.claimed_tflops > 1.3 * c.fp32 THEN format('the %s computes %s TFLOPS at its best, not %s', c.model, c.fp32, NEW.claimed_tflops)
      WHEN NEW.claimed_memory_gbps > 1.3 * c.memory_gbps THEN format('the memory of the %s moves %s GB/s, not %s', c.model, c.memory_gbps, NEW.claimed_memory_gbps)
      WHEN wrong THEN format('it delivers %s TFLOPS%s, like the %s and not like the %s that it claims to be', round(NEW.tflops::numeric, 2),
                             coalesce(format(' and %s GB/s', round(NEW.memory_gbps::numeric, 1)), ''), nearest, c.model)
      ELSE '' END;
  END IF;
  IF doubt = '' AND NEW.refuted <> '' THEN doubt := 'it failed a challenge: ' || NEW.refuted; END IF;
  NEW.doubt := left(doubt, 300);
  NEW.verified := NEW.verified AND NEW.doubt = '';
  NEW.verified_model := CASE WHEN NEW.tflops IS NULL OR NEW.kind = 'cpu' THEN NULL WHEN wrong THEN nearest ELSE coalesce(c.model, 'unknown') END;
  NEW.dl_score := CASE WHEN NEW.verified THEN 100 * sqrt(NEW.tflops / 35.6 * NEW.memory_gbps / 936) END;
  RETURN NEW;
END $$;
CREATE OR REPLACE TRIGGER device_judged
  BEFORE INSERT OR UPDATE OF kind, model, memory_mb, claimed_tflops, claimed_memory_gbps, verified, tflops, memory_gbps, refuted
  ON gpu_device FOR EACH ROW EXECUTE FUNCTION gpu_judge_device();

CREATE OR REPLACE FUNCTION gpu_tell_doubt() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  PERFORM trading_announce('gpu.device_doubted', 'miner:' || NEW.miner_id, jsonb_build_object(
    'miner', NEW.miner_id, 'device', NEW.id, 'doubt', NEW.doubt));
  RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER device_doubt_begins AFTER INSERT ON gpu_device
  FOR EACH ROW WHEN (NEW.doubt <> '') EXECUTE FUNCTION gpu_tell_doubt();
CREATE OR REPLACE TRIGGER device_doubt_changes AFTER UPDATE ON gpu_device
  FOR EACH ROW WHEN (OLD.doubt <> NEW.doubt) EXECUTE FUNCTION gpu_tell_doubt();
