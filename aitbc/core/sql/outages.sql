-- The log of the platform's own outages (protocols 16): when a process ticks again after a gap, the gap is kept.
CREATE OR REPLACE FUNCTION core_keep_outage() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO core_platform_outage (process, began_at, ended_at) VALUES (NEW.process, OLD.at, NEW.resumed_at);
  RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER platform_outage_kept AFTER UPDATE ON core_platform_tick
  FOR EACH ROW WHEN (OLD.resumed_at < NEW.resumed_at AND OLD.at < NEW.resumed_at) EXECUTE FUNCTION core_keep_outage();

-- Seconds of a span in which the relay, through which everybody hears of everything, was away.
CREATE OR REPLACE FUNCTION core_outage_seconds(p_from timestamptz, p_until timestamptz) RETURNS float8 LANGUAGE sql STABLE AS $$
  SELECT coalesce(sum(extract(epoch FROM least(ended_at, p_until) - greatest(began_at, p_from))), 0)::float8
    FROM core_platform_outage WHERE process = 'relay' AND began_at < p_until AND ended_at > p_from
$$;
