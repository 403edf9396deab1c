-- What is owed, for the comparison with the chain, and as a Merkle sum tree that every user can check.

-- The last final block beside what the ledger says of it: owed against this chain (its mirror account runs
-- negative), and the net inflow of final transfers that are not consumed yet. No row before a block is final.
CREATE OR REPLACE FUNCTION reserve_snapshot(p_network text)
RETURNS TABLE (block bigint, block_hash text, liabilities numeric, pending numeric, addresses text[])
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
  WITH ours AS (
    SELECT address FROM trading_depositaddress WHERE network = p_network
    UNION SELECT address FROM chain_deployment WHERE network = p_network AND name = 'Settlement'),
  waiting AS (
    SELECT (e.args ->> 'value')::numeric AS value,
           decode(substr(e.args ->> 'from', 3), 'hex') IN (SELECT address FROM ours) AS leaves,
           decode(substr(e.args ->> 'to', 3), 'hex') IN (SELECT address FROM ours) AS comes
      FROM chain_finalevent e JOIN chain_networkstatus s ON s.network = e.network AND e.id > s.event_cursor
     WHERE e.network = p_network AND e.contract = 'AIT' AND e.name = 'Transfer')
  SELECT s.final_height, '0x' || encode(s.final_hash, 'hex'),
         (SELECT -coalesce(sum(posted), 0) FROM trading_account
           WHERE kind = 'external' AND asset_id = 'AIT' AND chain = p_network),
         (SELECT coalesce(sum(value * (comes::int - leaves::int)), 0) FROM waiting),
         ARRAY(SELECT '0x' || encode(address, 'hex') FROM trading_depositaddress WHERE network = p_network ORDER BY id)
    FROM chain_networkstatus s WHERE s.network = p_network AND s.final_hash IS NOT NULL
$$;

-- Nodes of the last trees. A sum below zero, or one that could overflow 128 bits with sign, has no place here.
CREATE TABLE IF NOT EXISTS trading_liability_node (
  proof uuid NOT NULL, level smallint NOT NULL, place int NOT NULL, hash text NOT NULL,
  total numeric NOT NULL CHECK (total >= 0 AND total < 170141183460469231731687303715884105728),
  person uuid, salt text, PRIMARY KEY (proof, level, place));
CREATE UNIQUE INDEX IF NOT EXISTS liability_leaf_of ON trading_liability_node (proof, person) WHERE person IS NOT NULL;

CREATE OR REPLACE FUNCTION liability_hash(p_text text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
  SELECT encode(sha256(convert_to(p_text, 'UTF8')), 'hex')
$$;

-- One leaf per user: all he has (available, held, maturing, claimable on this chain), under 256 random bits of his
-- own and in their order, so that a neighbour learns an amount and never whose. A node commits both sides' hashes
-- and sums; one without a partner goes up unchanged.
CREATE OR REPLACE FUNCTION liabilities_prove(p_network text)
RETURNS TABLE (proof uuid, root text, owed numeric, users int)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp AS $$
#variable_conflict use_column
DECLARE
  p_proof uuid := uuidv7(); height int := 0; width int; people int;
BEGIN
  DELETE FROM trading_liability_node   -- six trees stay beside the new one; their roots are kept for good
   WHERE NOT proof = ANY (ARRAY(SELECT proof FROM trading_reservecheck WHERE proof IS NOT NULL ORDER BY id DESC LIMIT 6));
  INSERT INTO trading_liability_node (proof, level, place, hash, total, person, salt)
  SELECT p_proof, 0, row_number() OVER (ORDER BY x.salt) - 1,
         liability_hash(format('leaf:%s:%s:%s', x.salt, x.person, x.total)), x.total, x.person, x.salt
    FROM (SELECT owner_id AS person, sum(posted) AS total,
                 encode(sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())
                               || uuid_send(gen_random_uuid())), 'hex') AS salt
            FROM trading_account
           WHERE asset_id = 'AIT' AND owner_id IS NOT NULL
             AND (kind IN ('available', 'maturing', 'escrow', 'bond') OR (kind = 'claimable' AND chain = p_network))
           GROUP BY owner_id) x;
  GET DIAGNOSTICS width = ROW_COUNT;
  people := width;
  WHILE width > 1 LOOP
    INSERT INTO trading_liability_node (proof, level, place, hash, total)
    SELECT p_proof, height + 1, n.place / 2,   -- grouped, not joined: linear, whatever the planner knows
           CASE count(*) WHEN 1 THEN min(n.hash)
                ELSE liability_hash('node:' || string_agg(n.hash || ':' || n.total, ':' ORDER BY n.place)) END,
           sum(n.total)
      FROM trading_liability_node n WHERE n.proof = p_proof AND n.level = height GROUP BY n.place / 2;
    GET DIAGNOSTICS width = ROW_COUNT;
    height := height + 1;
  END LOOP;
  RETURN QUERY SELECT p_proof, '0x' || n.hash, n.total, people FROM trading_liability_node n WHERE n.proof = p_proof AND n.level = height;
END $$;

-- A user's leaf and the siblings from it up to the root; NULL for who has no leaf.
CREATE OR REPLACE FUNCTION liability_proof(p_proof uuid, p_person uuid) RETURNS jsonb
LANGUAGE sql STABLE SET search_path = public, pg_temp AS $$
  WITH RECURSIVE walk(level, place) AS (
    SELECT level::int, place FROM trading_liability_node WHERE proof = p_proof AND person = p_person
    UNION ALL
    SELECT w.level + 1, w.place / 2 FROM walk w
      JOIN trading_liability_node n ON n.proof = p_proof AND n.level = w.level + 1 AND n.place = w.place / 2)
  SELECT jsonb_build_object('user', f.person, 'salt', f.salt, 'amount', f.total::text, 'path', coalesce((
           SELECT jsonb_agg(jsonb_build_object('side', CASE s.place % 2 WHEN 0 THEN 'left' ELSE 'right' END,
                                               'hash', s.hash, 'sum', s.total::text) ORDER BY s.level)
             FROM walk w JOIN trading_liability_node s ON s.proof = p_proof AND s.level = w.level AND s.place = (w.place # 1)
         ), '[]'::jsonb))
    FROM trading_liability_node f WHERE f.proof = p_proof AND f.person = p_person
$$;
