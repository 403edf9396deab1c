"""Rule 12: two signatures, the miner's over the work and the platform's over what it measured."""

from django.conf import settings

from aitbc.core.testing.cast import MATMUL_OUTPUT
from apps.gpu import receipts, verification
from apps.gpu.tests.steps import lease_of, pass_time, read, refused, start
from apps.gpu.tests.test_receipts import resigned


def verdict(document):
    addresses = receipts.network_addresses()
    return verification.verify(document, platform_addresses=addresses, chain_id=settings.CHAIN_ID)


def finished(client, miner, **claims):
    lease = lease_of(client, miner)
    start(miner, lease)
    pass_time(lease["id"], 3)
    assert miner.deliver(lease, MATMUL_OUTPUT, **claims).status_code == 200
    return read(client.get(f"/v1/jobs/{lease['id']}/receipt"))


def test_both_signatures_verify_and_each_is_needed(alice, mike, nora):
    document = finished(alice, mike)
    assert verdict(document).checks["signature"] is True
    assert verdict(document).checks["counter_signature"] is True

    foreign = finished(alice, nora)["miner"]
    answer = verdict(resigned(document, miner=foreign))
    assert (answer.valid, answer.checks["signature"], answer.checks["counter_signature"]) == (False, True, False)


def test_the_platform_cannot_change_what_the_miner_agreed_to(alice, mike):
    document = finished(alice, mike)

    answer = verdict(resigned(document, statement=document["statement"] | {"max_units": "9"}))

    assert (answer.checks["signature"], answer.checks["counter_signature"]) == (True, False)


def test_no_result_is_accepted_without_the_miners_signature(alice, mike, nora):
    lease = lease_of(alice, mike)
    forged = nora.sign_result(lease, MATMUL_OUTPUT)

    refused(mike.deliver(lease, MATMUL_OUTPUT, statement_signature=forged), 422, "result.signature")


def test_a_disagreement_on_units_leaves_both_signatures_in_place(alice, mike):
    document = finished(alice, mike, claimed_ms=1234)

    assert document["units"] == 1234
    assert verdict(document).valid


def test_commitments_hide_equal_inputs_from_all_but_the_parties(alice, mike, nora):
    first, second = finished(alice, mike), finished(alice, nora)

    for name in ("input_commitment", "output_commitment"):
        assert first["statement"][name] != second["statement"][name]
    assert first["salt"] != second["salt"]
