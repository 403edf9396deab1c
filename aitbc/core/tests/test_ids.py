"""Identifiers: UUID version 7 as RFC 9562 lays it out."""

import time
import uuid

from aitbc.core import ids


def test_version_and_variant_are_those_of_the_rfc():
    for _ in range(1000):
        one = ids.uuid7()
        assert (one.version, one.variant) == (7, uuid.RFC_4122)
        assert ids.is_uuid7(one)


def test_the_first_48_bits_are_the_milliseconds_of_now():
    before = time.time_ns() // 1_000_000
    found = ids.uuid7().int >> 80
    assert before <= found <= time.time_ns() // 1_000_000


def test_ids_sort_by_the_time_of_their_making(monkeypatch):
    moments = iter(range(1_700_000_000_000, 1_700_000_001_000))
    monkeypatch.setattr(ids.time, "time_ns", lambda: next(moments) * 1_000_000)
    made = [ids.uuid7() for _ in range(1000)]
    assert made == sorted(made)
    assert [str(one) for one in made] == sorted(str(one) for one in made)


def test_ids_of_one_millisecond_differ(monkeypatch):
    monkeypatch.setattr(ids.time, "time_ns", lambda: 1_700_000_000_000_000_000)
    made = {ids.uuid7() for _ in range(10_000)}
    assert len(made) == 10_000
    assert len({one.int >> 80 for one in made}) == 1


def test_all_random_bits_are_used(monkeypatch):
    monkeypatch.setattr(ids.time, "time_ns", lambda: 0)
    ones = zeros = 0
    for _ in range(300):
        ones |= ids.uuid7().int
        zeros |= ~ids.uuid7().int
    fixed = 0xF << 76 | 0x3 << 62 | ((1 << 48) - 1) << 80
    assert ones & zeros & ~fixed == ((1 << 128) - 1) & ~fixed


def test_other_versions_are_told_apart():
    assert not ids.is_uuid7(uuid.uuid4())
    assert not ids.is_uuid7(uuid.UUID(int=0))
