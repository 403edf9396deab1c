"""Receipts verify offline to the byte; whatever was changed is refused with its reason."""

import copy
import json
import os
import subprocess
import sys

import orjson
import pytest
from django.conf import settings as django_settings
from django.core.management import CommandError, call_command

from aitbc.chain import keystore, merkle, signing
from aitbc.core.testing import cast
from apps.gpu import receipts, statements, verification
from apps.gpu.management.commands.verify_receipt import verify_file
from apps.gpu.models import Receipt
from apps.gpu.tests.steps import lease_of, read, refused, start
from apps.trading.models import ReceiptLeaf, SettlementBatch


def verdict(document, addresses=None):
    return verification.verify(
        document,
        platform_addresses=receipts.network_addresses() if addresses is None else addresses,
        chain_id=django_settings.CHAIN_ID,
    )


@pytest.fixture
def document(alice, mike):
    """A receipt as its client reads it, salt included, not anchored yet."""
    lease = lease_of(alice, mike)
    start(mike, lease)
    assert mike.deliver(lease, cast.MATMUL_OUTPUT).status_code == 200
    return read(alice.get(f"/v1/jobs/{lease['id']}/receipt"))


@pytest.fixture
def anchored(alice, document):
    """The same after its batch of five is final: planted rows, but real leaves and a real tree."""
    leaves = [bytes.fromhex(ReceiptLeaf.objects.get().leaf[2:]), *(os.urandom(32) for _ in range(4))]
    batch = SettlementBatch.objects.create(
        id=document["statement"]["job"],
        network="test",
        state="final",
        root="0x" + merkle.root(leaves).hex(),
        receipts=5,
        tx_hash="0x" + "5e" * 32,
        block=77,
    )
    ReceiptLeaf.objects.update(batch=batch, position=0)
    for position, leaf in enumerate(leaves[1:], start=1):
        ReceiptLeaf.objects.create(job=cast.uuid7(), leaf="0x" + leaf.hex(), batch=batch, position=position)
    return read(alice.get(f"/v1/jobs/{document['statement']['job']}/receipt"))


@pytest.fixture
def public(anchored):
    """As it is shown to anybody: without the salt."""
    return {name: value for name, value in anchored.items() if not name.startswith("salt")}


def test_a_receipt_verifies_before_and_after_it_is_anchored(document, anchored, public):
    for shown, merkle_check in ((document, None), (anchored, True), (public, True)):
        answer = verdict(shown)
        assert (answer.valid, answer.reason) == (True, None)
        assert answer.checks == {"signature": True, "counter_signature": True, "price": True, "merkle": merkle_check}


def test_what_the_database_keeps_is_what_was_signed(document):
    stored = Receipt.objects.get()
    bare = {name: document[name] for name in stored.document}

    assert bare == stored.document
    assert stored.leaf == "0x" + receipts.leaf(document).hex() == ReceiptLeaf.objects.get().leaf


def test_the_commitments_open_with_the_salt(document):
    salt = bytes.fromhex(document["salt"][2:])
    statement = document["statement"]

    for name, value in (("input", cast.MATMUL), ("output", cast.MATMUL_OUTPUT)):
        made = "0x" + statements.commitment(salt=salt, value=value).hex()
        assert statement[f"{name}_commitment"] == made


def test_the_public_endpoint_gives_the_same_verdict(alice, anchored):
    from django.test import Client

    good = Client().post("/v1/receipts/verify", orjson.dumps(anchored), content_type="application/json")
    bad = Client().post("/v1/receipts/verify", orjson.dumps(anchored | {"units": 0}), content_type="application/json")

    assert read(good) == verdict(anchored).as_json()
    assert read(bad)["valid"] is False
    assert read(bad)["reason"] == "the platform's signature does not match the receipt"


# -- who may see what ----------------------------------------------------------------------------
def test_the_salt_is_for_the_parties_only(alice, mike, nora, mallory, document):
    path = f"/v1/jobs/{document['statement']['job']}/receipt"

    assert read(mike.get(path)) == read(alice.get(path)) == document
    for stranger in (nora, mallory):
        refused(stranger.get(path), 404, "receipt.unknown")


def test_the_answer_is_canonical_json_so_that_it_can_be_kept_as_a_file(alice, document):
    body = alice.get(f"/v1/jobs/{document['statement']['job']}/receipt").content

    assert body == statements.canonical(document)
    assert verify_file(body, [receipts.platform_signer().address]).valid


# -- every change is refused ---------------------------------------------------------------------
def resigned(document, **changes):
    """The platform itself signs something else: shows what the other checks are worth alone."""
    made = copy.deepcopy(document)
    made.update(changes)
    made = {name: value for name, value in made.items() if not name.startswith("salt")}
    statement = statements.WorkStatement.from_json(made["statement"])
    bill = verification.Bill(
        made["units"], *(verification.money.units(made[name]["amount"], 18) for name in ("total", "fee"))
    )
    started, finished = (verification._read_time(made[name]) for name in ("started_at", "finished_at"))
    signer = receipts.platform_signer()
    values = receipts.signed_values(statement.hash(), bill, started, finished, signer.key_id)
    made["platform"]["signature"] = signer.sign(
        signing.digest(statements.domain(django_settings.CHAIN_ID), statements.RECEIPT, values)
    )
    return made


def change(document, path, value):
    changed = copy.deepcopy(document)
    place = changed
    for name in path[:-1]:
        place = place[name]
    assert place[path[-1]] != value
    place[path[-1]] = value
    return changed


PLATFORM = "the platform's signature does not match the receipt"


@pytest.mark.parametrize(
    ("path", "value", "check", "reason"),
    [
        (("version",), "2", "signature", "not a receipt: unknown version"),
        (("units",), 10**9, "signature", PLATFORM),
        (("total", "amount"), "123", "signature", PLATFORM),
        (("total", "asset"), "BTC", "signature", "not a receipt: the asset of total is not AIT"),
        (("fee", "amount"), "0", "signature", PLATFORM),
        (("started_at",), "2020-01-01T00:00:00.000Z", "signature", PLATFORM),
        (("started_at",), "2020-01-01", "signature", "not a receipt: a time is not in its plain form"),
        (("finished_at",), "2099-01-01T00:00:00.000Z", "signature", PLATFORM),
        (("platform", "key_id"), "receipt-00000000", "signature", PLATFORM),
        (("platform", "address"), "0x" + "1" * 40, "signature", PLATFORM),
        (("platform", "signature"), "0x" + "12" * 65, "signature", PLATFORM),
        (
            ("miner", "address"),
            "0x" + "1" * 40,
            "counter_signature",
            "the miner's signature does not match the work statement",
        ),
        (
            ("miner", "signature"),
            "0x" + "12" * 65,
            "counter_signature",
            "the miner's signature does not match the work statement",
        ),
        *(
            (("statement", name), value, "signature", PLATFORM)
            for name, value in (
                ("job", "00000000-0000-7000-8000-000000000000"),
                ("kind", "text.embed"),
                ("client", "0x" + "00" * 32),
                ("miner", "00000000-0000-7000-8000-000000000000"),
                ("attempt", 9),
                ("lease", "0x" + "00" * 32),
                ("input_commitment", "0x" + "00" * 32),
                ("output_commitment", "0x" + "00" * 32),
                ("unit", "token"),
                ("unit_price", "7"),
                ("max_units", "7"),
            )
        ),
        (("salt",), "0x" + "00" * 32, "signature", "the platform's signature does not match the salt"),
        (("salt",), "0x" + "00" * 31, "signature", "the salt is malformed"),
        (("salt_signature",), "0x" + "12" * 65, "signature", "the platform's signature does not match the salt"),
        (("anchor", "root"), "0x" + "00" * 32, "merkle", "the Merkle proof does not lead to the anchored root"),
        (("anchor", "proof"), [], "merkle", "the Merkle proof does not lead to the anchored root"),
        (("anchor", "tx_hash"), "0x" + "00" * 32, "merkle", "the platform's signature does not match the anchor"),
        (("anchor", "chain_id"), 1, "merkle", "the platform's signature does not match the anchor"),
        (("anchor", "block"), 78, "merkle", "the platform's signature does not match the anchor"),
        (("anchor", "signature"), "0x" + "12" * 65, "merkle", "the platform's signature does not match the anchor"),
        (("anchor",), {"root": 5}, "merkle", "the anchor is malformed"),
    ],
)
def test_each_changed_field_is_refused_with_its_reason(anchored, path, value, check, reason):
    answer = verdict(change(anchored, path, value))

    assert (answer.valid, answer.reason) == (False, reason)
    assert answer.checks[check] is False


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"units": 10**9}, "units or fee exceed what was agreed"),
        ({"fee": {"amount": "5", "asset": "AIT"}}, "units or fee exceed what was agreed"),
        ({"total": {"amount": "5", "asset": "AIT"}}, "the total is not the units at the agreed price"),
        ({"total": {"amount": "5.0", "asset": "AIT"}}, "an amount is not in its plain form"),
        (
            {"finished_at": "2001-01-01T00:00:00.000Z", "started_at": "2001-01-01T00:00:00.000Z"},
            "more units than time between start and end",
        ),
    ],
)
def test_the_price_is_recomputed_whatever_was_signed(document, changes, reason):
    if "finished_at" in changes:
        changes = changes | {
            "units": 5,
            "total": {"amount": "0.000005", "asset": "AIT"},
            "fee": {"amount": "0", "asset": "AIT"},
        }

    answer = verdict(resigned(document, **changes))

    assert (answer.valid, answer.reason) == (False, reason)
    assert answer.checks["signature"] is True
    assert answer.checks["price"] is False


def test_a_receipt_of_another_platform_is_refused(document):
    stranger = signing.address_of(signing.new_private_key())

    answer = verdict(document, [stranger])

    assert answer.reason == "the receipt was signed by a key that is not the platform's"
    assert answer.checks["signature"] is False


@pytest.mark.parametrize("name", ["salt", "salt_signature", "units", "platform"])
def test_a_missing_member_is_refused(anchored, name):
    del anchored[name]

    assert verdict(anchored).reason.startswith("not a receipt: ")


NASTY = [
    None,
    True,
    -1,
    1.5,
    2**63,
    "",
    "x",
    "0x",
    [],
    ["address", "signature"],
    ["address", "key_id", "signature"],
    ["amount", "asset"],
    {},
    {"address": 1, "signature": []},
    {"amount": "1", "asset": "AIT"},
    {"amount": 1, "asset": "AIT"},
    {"root": "0x", "proof": 5, "tx_hash": 1, "chain_id": [], "block": None, "signature": {}},
    "9999-99-99T99:99:99.999Z",
    "0001-01-01T00:00:00.000Z",
    "\U0001f600",
]


def places(value, path=()):
    """The path of every member and item of a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, child in inner:
        yield (*path, name)
        yield from places(child, (*path, name))


def test_no_json_in_any_place_is_accepted_or_breaks_the_verification(anchored):
    tried = 0
    for path in places(anchored):
        for value in NASTY:
            if path == ("anchor",) and value is None:
                continue  # a receipt without its anchor is a receipt
            try:
                changed = change(anchored, path, value)
            except AssertionError:
                continue  # what stands there already
            answer = verdict(changed)
            tried += 1
            assert not answer.valid, (path, value)
            assert answer.reason
    assert tried > 700


@pytest.mark.parametrize("body", [b"{}", b'{"a": [1, 2]}', b'{"platform": ["address", "key_id", "signature"]}'])
def test_what_is_no_receipt_gets_a_verdict_from_the_endpoint(alice, body):
    answer = alice.post("/v1/receipts/verify", body)

    assert answer.status_code == 200
    assert read(answer)["valid"] is False
    assert read(answer)["reason"].startswith("not a receipt")


@pytest.mark.parametrize(("body", "status"), [(b"[]", 422), (b"1", 422), (b"{", 400), (b"", 422)])
def test_what_is_no_object_is_refused_by_the_endpoint(alice, body, status):
    assert alice.post("/v1/receipts/verify", body).status_code == status


# -- the file ------------------------------------------------------------------------------------
def test_any_flipped_byte_of_the_file_is_refused(anchored, public):
    addresses = [receipts.platform_signer().address]
    for shown in (anchored, public):
        raw = statements.canonical(shown)
        assert verify_file(raw, addresses).valid
        for index in range(len(raw)):
            for mask in (0x01, 0x20):
                flipped = raw[:index] + bytes([raw[index] ^ mask]) + raw[index + 1 :]
                answer = verify_file(flipped, addresses)
                assert not answer.valid, (index, flipped[max(0, index - 20) : index + 20])
                assert answer.reason


def test_any_removed_or_added_byte_is_refused(public):
    raw, addresses = statements.canonical(public), [receipts.platform_signer().address]
    for index in range(0, len(raw), 3):
        assert not verify_file(raw[:index] + raw[index + 1 :], addresses).valid
        assert not verify_file(raw[:index] + b" " + raw[index:], addresses).valid
    assert not verify_file(raw + b"\n", addresses).valid
    assert not verify_file(b"", addresses).valid


def run(*arguments):
    """The command's own output and its error, in process."""
    from io import StringIO

    out = StringIO()
    try:
        call_command("verify_receipt", *arguments, stdout=out)
    except CommandError as error:
        return json.loads(out.getvalue()) if out.getvalue() else None, str(error)
    return json.loads(out.getvalue()), None


def test_the_command_trusts_the_platforms_key_file_without_its_password(public, tmp_path, settings):
    file = tmp_path / "receipt.json"
    file.write_bytes(statements.canonical(public))
    settings.KEYS_DIR = tmp_path / "keys"
    settings.KEYS_DIR.mkdir()
    key_file = settings.KEYS_DIR / "receipt.json"
    key_file.write_text(json.dumps({"address": receipts.platform_signer().address[2:].lower()}))
    key_file.chmod(0o600)

    answer, error = run(str(file))

    assert (answer, error) == (verdict(public).as_json(), None)


def test_the_command_trusts_the_addresses_it_is_given(public, tmp_path, settings):
    file = tmp_path / "receipt.json"
    file.write_bytes(statements.canonical(public))
    settings.KEYS_DIR = tmp_path / "nothing"
    stranger = signing.address_of(signing.new_private_key())

    _, error = run(str(file))
    assert "give --platform-address" in error
    answer, error = run(str(file), "--platform-address", receipts.platform_signer().address.lower())
    assert (answer["valid"], error) == (True, None)
    answer, error = run(str(file), "--platform-address", stranger)
    assert answer["valid"] is False
    assert "not the platform's" in error
    _, error = run(str(file), "--platform-address", "me")
    assert "not an address" in error
    _, error = run(str(tmp_path / "absent.json"), "--platform-address", stranger)
    assert "cannot read" in error


def test_the_command_works_with_every_store_out_of_reach(public, tmp_path):
    """A process of its own, whose stores' addresses lead nowhere; its exit status is the verdict."""
    file = tmp_path / "receipt.json"
    raw = statements.canonical(public)
    trust = ["--platform-address", receipts.platform_signer().address]
    environment = {
        **os.environ,
        "AITBC_VAR": str(tmp_path / "var"),
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:9/none",
        "DATABASE_OWNER_URL": "postgresql://nobody@127.0.0.1:9/none",
        "REDIS_URL": "redis://127.0.0.1:9/0",
        "CHAIN_RPC_URL": "http://127.0.0.1:9",
        "DJANGO_SETTINGS_MODULE": "aitbc.settings.local",
    }
    outcomes = []
    for content in (raw, raw.replace(b'"units":', b'"units" :')):
        file.write_bytes(content)
        outcomes.append(
            subprocess.run(
                [sys.executable, "manage.py", "verify_receipt", str(file), *trust],
                cwd=django_settings.BASE_DIR,
                env=environment,
                capture_output=True,
                text=True,
                timeout=60,
            )
        )

    good, bad = outcomes
    assert (good.returncode, json.loads(good.stdout)["valid"]) == (0, True), good.stderr
    assert (bad.returncode, json.loads(bad.stdout)["valid"]) == (1, False)
    assert not (tmp_path / "var" / "postgres").exists()


def test_of_several_files_all_must_be_valid(public, tmp_path):
    from io import StringIO

    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_bytes(statements.canonical(public))
    bad.write_bytes(statements.canonical(public | {"units": public["units"] + 1}))
    out, trust = StringIO(), ["--platform-address", receipts.platform_signer().address]

    call_command("verify_receipt", str(good), str(good), *trust, stdout=out)
    with pytest.raises(CommandError, match=r"1 of 2 are NOT valid, the first .*bad\.json"):
        call_command("verify_receipt", str(good), str(bad), *trust, stdout=out)

    answers = [json.loads(line)["valid"] for line in out.getvalue().splitlines()]
    assert answers == [True, True, True, False]


@pytest.mark.parametrize("content", ["{}", "[]", "no", '{"address": 5}', '{"address": "12"}'])
def test_a_key_file_without_an_address_is_named(tmp_path, settings, content):
    settings.KEYS_DIR = tmp_path
    (tmp_path / "receipt.json").write_text(content)
    (tmp_path / "receipt.json").chmod(0o600)

    with pytest.raises(keystore.Unavailable) as caught:
        keystore.address("receipt")

    assert caught.value.code == "keystore.malformed"
