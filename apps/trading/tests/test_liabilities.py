"""Every user can check that he is counted, and nobody can be left out, shrunk or made negative unseen."""

import hashlib
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, connections, transaction

from aitbc.chain import reads
from aitbc.chain.addresses import bytes32
from aitbc.chain.testing import AIT, Actor
from aitbc.core import db
from aitbc.core.errors import NotFound, Unavailable
from aitbc.core.ids import uuid7
from aitbc.core.testing.cast import person
from apps.trading import liability_tree
from apps.trading.models import ReserveCheck
from apps.trading.selectors import chain as selectors
from apps.trading.services import ledger
from apps.trading.services.deposits import deposit_address
from apps.trading.services.payouts import seal_payouts, set_target
from apps.trading.services.reserves import check_reserves
from apps.trading.services.withdrawals import withdraw


@pytest.fixture
def net(committed_net, monkeypatch):
    monkeypatch.setattr(reads, "client", lambda: committed_net.client)
    return committed_net


@pytest.fixture
def people(net):
    """Five with 1, 2, ... 5 AIT: held, on its way out, claimable, or just there."""
    found = [person(f"p{i}") for i in range(5)]
    for i, who in enumerate(found):
        net.mint(deposit_address(user=who.id), (i + 1) * AIT)
    net.settle()
    wallet = ledger.account_id(owner=found[0].id, kind="available")
    ledger.apply_all([ledger.Item(id=uuid7(), action="hold", kind="test.hold", debit=wallet, amount=5)])
    withdraw(user=found[1].id, address=Actor(net.client).address, amount=AIT)  # the address waits
    set_target(user=found[2].id, address=Actor(net.client).address)
    seal_payouts(minimum=1, most=10**30, wait_seconds=0, alone=10**30)
    net.settle()
    return found


def proof_of(who) -> dict:
    return selectors.liability_proof(user=who.id) | {"user": str(who.id)}


def test_every_user_finds_all_he_has_under_the_published_root(net, people):
    check = check_reserves(prove=True)

    assert (check.difference, check.users, check.owed) == (0, 5, 15 * AIT)
    published = selectors.liabilities()
    assert (published["total"], published["covered"]) == (str(15 * AIT), True)
    assert published["onchain"] == "15"
    for i, who in enumerate(people):
        document = proof_of(who)
        assert liability_tree.verify(document) == (i + 1) * AIT
        assert (document["root"], document["total"]) == (published["root"], published["total"])
    with pytest.raises(NotFound, match=r"liabilities\.none"):
        selectors.liability_proof(user=person("stranger").id)


def test_the_root_is_anchored_on_the_chain(net, people):
    check = check_reserves(prove=True)
    net.settle()
    assert net.settlement.read("anchored", bytes32(check.proof)).hex() == check.root[2:]


def test_over_http_the_root_is_public_and_a_proof_its_owners(net, people, client, tmp_path, capsys):
    assert client.get("/v1/liabilities").json()["code"] == "liabilities.unproven"
    check_reserves(prove=True)
    assert client.get("/v1/liabilities").json()["users"] == 5
    assert client.get("/v1/liabilities/proof").status_code == 401
    mine, yours = (who.get("/v1/liabilities/proof").json() for who in people[:2])
    assert mine["user"] == str(people[0].id)
    assert yours["user"] == str(people[1].id)

    file = tmp_path / "proof.json"
    file.write_text(json.dumps(mine))
    call_command("verify_liability", file)
    assert capsys.readouterr().out.startswith(f"valid: {AIT} units of {15 * AIT} are owed, root {mine['root']}")
    for broken in (mine | {"amount": str(AIT + 1)}, mine | {"salt": None}, [], {}):
        file.write_text(json.dumps(broken))
        with pytest.raises(CommandError, match="NOT a valid proof"):
            call_command("verify_liability", file)


def test_a_neighbour_learns_no_identity(net, people):
    check_reserves(prove=True)
    for who in people:
        path = json.dumps(proof_of(who)["path"])
        others = [other for other in people if other is not who]
        assert not any(str(other.id) in path or other.user.email in path for other in others)
    salts = db.rows("SELECT salt FROM trading_liability_node WHERE salt IS NOT NULL")
    check_reserves(prove=True)
    again = db.rows("SELECT salt FROM trading_liability_node WHERE salt IS NOT NULL")
    assert len(set(again)) == 10
    assert set(salts) < set(again)


def _changes(document: dict) -> list[dict]:
    first, *rest = document["path"]
    negative = str(-int(first["sum"]))
    turned = {"left": "right", "right": "left"}[first["side"]]
    return [
        document | {"amount": str(int(document["amount"]) + 1)},
        document | {"amount": str(int(document["amount"]) - 1)},
        document | {"amount": "-1"},
        document | {"amount": "0" + document["amount"]},
        document | {"amount": str(2**127)},
        document | {"salt": "00" * 32},
        document | {"user": "00000000-0000-7000-8000-000000000001"},
        document | {"user": f"{document['user']}:{document['amount']}"},
        document | {"root": "00" * 32},
        document | {"total": str(int(document["total"]) - 1)},
        document | {"path": rest},
        document | {"path": [first, *document["path"]]},
        document | {"path": [first | {"sum": str(int(first["sum"]) + 1)}, *rest]},
        document | {"path": [first | {"sum": negative}, *rest]},
        document | {"path": [first | {"sum": str(2**127 - 1)}, *rest]},
        document | {"path": [first | {"side": turned}, *rest]},
        document | {"path": [first | {"side": "above"}, *rest]},
        document | {"path": [first | {"hash": "00" * 32}, *rest]},
        document | {"path": [first | {"hash": f"{first['hash']}:0"}, *rest]},
    ]


def test_any_unit_or_bit_that_differs_is_caught(net, people):
    check_reserves(prove=True)
    document = proof_of(people[3])
    assert liability_tree.verify(document) == 4 * AIT
    for changed in _changes(document):
        with pytest.raises(ValueError, match=r"does not lead|malformed|overflows|stands on"):
            liability_tree.verify(changed)


def test_a_user_who_is_dropped_shows_in_the_sum(net, people):
    """A tree without him cannot have the total of all: it differs from what the chain holds for users."""
    check = check_reserves(prove=True)
    leaves = db.rows("SELECT person, salt, total FROM trading_liability_node WHERE salt IS NOT NULL ORDER BY place")
    assert built(leaves) == (check.root, check.owed)  # an implementation of its own

    root, total = built([leaf for leaf in leaves if leaf[0] != people[4].id])

    assert total == check.owed - 5 * AIT
    assert total != check.contract + check.unswept - check.pending == check.owed  # no money is the platform's here
    assert liability_tree.verify(proof_of(people[4])) == 5 * AIT
    with pytest.raises(ValueError, match="does not lead"):
        liability_tree.verify(proof_of(people[4]) | {"root": root[2:], "total": str(total)})


def built(leaves: list) -> tuple[str, int]:
    """(root, total), from the words of the format alone."""
    row = [(_sha256(f"leaf:{salt}:{who}:{total}"), int(total)) for who, salt, total in leaves]
    while len(row) > 1:
        pairs = [row[i : i + 2] for i in range(0, len(row), 2)]
        row = [
            (_sha256(f"node:{p[0][0]}:{p[0][1]}:{p[1][0]}:{p[1][1]}"), p[0][1] + p[1][1]) if len(p) == 2 else p[0]
            for p in pairs
        ]
    return "0x" + row[0][0], row[0][1]


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_the_application_cannot_write_a_tree_by_hand(net, people):
    check = check_reserves(prove=True)
    for statement in (
        "UPDATE trading_liability_node SET total = total + 1",
        "DELETE FROM trading_liability_node",
        f"INSERT INTO trading_liability_node VALUES ('{check.proof}', 9, 9, '', 0)",
    ):
        with pytest.raises(Exception, match="permission denied"), transaction.atomic():
            connection.cursor().execute(statement)
    with connections["owner"].cursor() as owner:
        for amount in (-1, 2**127):
            with pytest.raises(IntegrityError), transaction.atomic("owner"):
                owner.execute("INSERT INTO trading_liability_node VALUES (%s, 9, 9, '', %s)", [check.proof, amount])


def test_before_any_proof_and_with_nobody_there_is_none(net):
    with pytest.raises(Unavailable, match=r"liabilities\.unproven"):
        selectors.liabilities()
    net.mine(5)
    net.settle()
    assert check_reserves(prove=True).root is None
    with pytest.raises(Unavailable, match=r"liabilities\.unproven"):
        selectors.liabilities()


def test_only_the_last_trees_are_kept_but_every_root(net, people):
    roots = {check_reserves(prove=True).root for _ in range(9)}
    assert len(roots) == ReserveCheck.objects.exclude(proof=None).count() == 9
    assert db.value("SELECT count(DISTINCT proof) FROM trading_liability_node") == 7
    assert liability_tree.verify(proof_of(people[0])) == AIT


def test_the_verifier_runs_without_django(tmp_path):
    code = "import sys; sys.modules['django'] = None\n"
    code += "from apps.trading.liability_tree import verify; print(verify)"
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "function verify" in done.stdout


@pytest.mark.parametrize("users", [1, 2, 3, 7, 64, 10_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_a_tree_of_any_size_is_built_in_seconds_and_proves_everybody(committed_db, users):
    with connections["owner"].cursor() as owner:
        owner.execute(
            """WITH made AS (
                 INSERT INTO accounts_user
                   (id, email, name, role, password, is_staff, is_active, is_superuser, created_at)
                 SELECT uuidv7(), 'many' || n || '@example.com', '', 'client', '', false, true, false, now()
                   FROM generate_series(1, %s) n RETURNING id)
               INSERT INTO trading_account
                 (owner_id, asset_id, kind, chain, shard, posted, held, overdraft, created_at)
               SELECT id, 'AIT', 'available', '', 0, (random() * 1e24)::numeric(38, 0), 0, false, now()
                 FROM made""",
            [users],
        )
        begun = time.perf_counter()
        owner.execute("SELECT * FROM liabilities_prove('ait-devnet')")
        proof, root, total, count = owner.fetchone()
        seconds = time.perf_counter() - begun
        owner.execute("SELECT owner_id, posted FROM trading_account WHERE asset_id = 'AIT' AND owner_id IS NOT NULL")
        balances = dict(owner.fetchall())
        assert (count, int(total)) == (users, int(sum(balances.values())))
        for who in random.Random(users).sample(sorted(balances), min(users, 50)):
            owner.execute("SELECT liability_proof(%s, %s)::text", [proof, who])
            document = json.loads(owner.fetchone()[0]) | {"root": root, "total": str(total)}
            assert liability_tree.verify(document) == int(balances[who])
            assert len(document["path"]) <= 17
    assert seconds < 30, f"{users} users took {seconds:.1f} s"
