-- Offers carry their miner's score for the search; it changes every few minutes, and no event tells of it.
CREATE OR REPLACE FUNCTION offer_follow_score() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  UPDATE marketplace_offer SET reliability = NEW.reliability, reliability_low = NEW.reliability_low,
         reliability_high = NEW.reliability_high, reliability_samples = NEW.reliability_samples, updated_at = clock_timestamp()
   WHERE miner_id = NEW.id AND state <> 'delisted';
  RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER offers_follow_score AFTER UPDATE OF reliability ON gpu_miner FOR EACH ROW
  WHEN ((OLD.reliability, OLD.reliability_low, OLD.reliability_high, OLD.reliability_samples)
    IS DISTINCT FROM (NEW.reliability, NEW.reliability_low, NEW.reliability_high, NEW.reliability_samples))
  EXECUTE FUNCTION offer_follow_score();
