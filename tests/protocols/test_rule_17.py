"""Rule 17: heartbeats form a chain that the miner signs and the platform acknowledges."""

from django.conf import settings

from aitbc.accounts.models import AuditEvent
from aitbc.chain import signing
from aitbc.chain.signing import keccak
from aitbc.core import db
from aitbc.core.testing import cast
from apps.gpu import receipts, statements
from apps.gpu.models import Heartbeat, HeartbeatRoot
from apps.gpu.services import reliability
from apps.gpu.tests.beats import beat
from apps.gpu.tests.logs import beats_at
from apps.gpu.tests.steps import read, refused
from apps.gpu.tests.test_reliability import (  # noqa: F401 - collected here too
    test_a_gap_counts_less_what_a_signature_vouches_for_once_the_chain_goes_on,
    test_a_stranger_can_check_a_day_by_the_api_alone,
    test_signed_minutes_count_and_unsigned_beats_vouch_for_nothing,
)
from apps.trading.tests import books


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


def test_the_daily_root_is_a_line_of_the_journal_that_settlements_anchor(committed_db):
    """Anchored heads cover the audit log (rule 10), and the root is an event of it."""
    mike = cast.seller("mike")
    beats_at(mike, 3 * 86_400)

    sealed = reliability.seal_day()
    books.sealed()

    assert sealed == HeartbeatRoot.objects.get()
    event = AuditEvent.objects.get(action="gpu.heartbeats_sealed")
    assert event.after == {"root": sealed.root, "miners": 1}
    assert ledger_lines(event.number) == 1


def ledger_lines(number: int) -> int:
    return db.value(
        """SELECT count(*)::int FROM trading_journalblock b, journal_lines(0, b.upto) l
            WHERE b.number = (SELECT max(number) FROM trading_journalblock)
              AND l.line IN (SELECT concat_ws('|', 'audit', a.number, encode(a.head, 'hex'))
                               FROM accounts_auditevent a WHERE a.number = %s)""",
        (number,),
    )
