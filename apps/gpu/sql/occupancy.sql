-- Devices that are let: one order at a time, by a constraint and not by a flag.
-- A range of one uuid, so that the exclusion needs no extension: GiST knows how to compare ranges.
DO $$ BEGIN CREATE TYPE uuidrange AS RANGE (subtype = uuid); EXCEPTION WHEN duplicate_object THEN NULL; END $$;
ALTER TABLE gpu_occupancy DROP CONSTRAINT IF EXISTS occupancy_once, ADD CONSTRAINT occupancy_once
  EXCLUDE USING gist (uuidrange(device_id, device_id, '[]') WITH &&, during WITH &&);
ALTER TABLE gpu_occupancy DROP CONSTRAINT IF EXISTS occupancy_has_time, ADD CONSTRAINT occupancy_has_time
  CHECK (NOT isempty(during) AND NOT lower_inf(during) AND NOT upper_inf(during));

-- Whoever changes spans of devices takes turns: two inserts that overlap would else wait for each other's outcome for ever.
-- After the caller's own rows (orders by id), before any account.
CREATE OR REPLACE FUNCTION gpu_take_turns(p_devices uuid[]) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  PERFORM pg_advisory_xact_lock(hashtextextended(x.d::text, 31)) FROM (SELECT DISTINCT d FROM unnest(p_devices) d ORDER BY d) x;
END $$;

-- All devices from p_from until p_until for one holder: ok, or taken (and then none of them).
CREATE OR REPLACE FUNCTION gpu_occupy(p_holder uuid, p_client uuid, p_devices uuid[], p_from timestamptz, p_until timestamptz)
RETURNS text LANGUAGE plpgsql AS $$
BEGIN
  PERFORM gpu_take_turns(p_devices);
  INSERT INTO gpu_occupancy (device_id, holder, client_id, during)
  SELECT d, p_holder, p_client, tstzrange(p_from, p_until) FROM unnest(p_devices) d ORDER BY d;
  RETURN 'ok';
EXCEPTION WHEN exclusion_violation THEN RETURN 'taken';
END $$;

-- The holder's spans end at another time: how many, or an exclusion_violation.
CREATE OR REPLACE FUNCTION gpu_occupy_until(p_holder uuid, p_until timestamptz) RETURNS int LANGUAGE plpgsql AS $$
DECLARE n int;
BEGIN
  PERFORM gpu_take_turns(ARRAY(SELECT device_id FROM gpu_occupancy WHERE holder = p_holder));
  UPDATE gpu_occupancy SET during = tstzrange(lower(during), p_until) WHERE holder = p_holder;
  GET DIAGNOSTICS n = ROW_COUNT;
  RETURN n;
END $$;

-- The holder's devices are free from p_moment on -> how many. A span that had not begun is gone, one that is over stays.
CREATE OR REPLACE FUNCTION gpu_vacate(p_holder uuid, p_moment timestamptz) RETURNS int LANGUAGE plpgsql AS $$
DECLARE n int; m int;
BEGIN
  PERFORM gpu_take_turns(ARRAY(SELECT device_id FROM gpu_occupancy WHERE holder = p_holder));
  DELETE FROM gpu_occupancy WHERE holder = p_holder AND lower(during) >= p_moment;
  GET DIAGNOSTICS n = ROW_COUNT;
  UPDATE gpu_occupancy SET during = tstzrange(lower(during), p_moment)
   WHERE holder = p_holder AND during @> p_moment AND lower(during) < p_moment;
  GET DIAGNOSTICS m = ROW_COUNT;
  RETURN n + m;
END $$;
