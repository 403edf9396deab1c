"""Rule 17: heartbeats form a chain that the miner signs and the platform acknowledges."""

from django.conf import settings

from aitbc.chain import signing
from aitbc.chain.signing import keccak
from apps.gpu import receipts, statements
from apps.gpu.models import Heartbeat
from apps.gpu.tests.beats import beat
from apps.gpu.tests.steps import read, refused


def digest_of(head: str) -> bytes:
    """What was signed, from the log alone: the head is the struct's hash."""
    return keccak(b"\x19\x01" + statements.domain(settings.CHAIN_ID).separator + bytes.fromhex(head[2:]))


def test_the_log_alone_proves_the_chain_and_its_signatures(mike):
    acknowledged = [read(beat(mike, signed=n % 2 == 0))["acknowledgement"] for n in range(5)]

    log = list(Heartbeat.objects.order_by("sequence"))
    assert [row.sequence for row in log] == [1, 2, 3, 4, 5]
    assert [row.previous for row in log] == ["0x" + "00" * 32, *(row.head for row in log[:-1])]
    address = signing.address_of(mike.private_key)
    signed = [row for row in log if row.signature]
    assert [row.sequence for row in signed] == [1, 3, 5]
    assert {signing.recover(digest_of(row.head), row.signature) for row in signed} == {address}
    platform = receipts.platform_signer().address
    for answer in acknowledged:
        assert signing.recover(digest_of(answer["head"]), answer["signature"]) == platform


def test_a_rewritten_past_does_not_fit_the_chain(mike):
    beat(mike)
    beat(mike)

    refused(beat(mike, previous="0x" + "22" * 32), 409, "heartbeat.out_of_order")
    refused(beat(mike, sequence=2), 409, "heartbeat.out_of_order")
    refused(beat(mike, sequence=4), 409, "heartbeat.out_of_order")
    assert Heartbeat.objects.count() == 2
