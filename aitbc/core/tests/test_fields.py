"""Fields of chain values: exact numbers and checked bytes, in and out of PostgreSQL."""

from decimal import Decimal

import pytest
from django.core.exceptions import ValidationError
from django.db import DataError, connection, models, transaction

from aitbc.core.fields import AddressField, AmountField, HashField, checksum

# The examples of EIP-55 itself.
EIP55 = [
    "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
    "0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
    "0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
    "0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
    "0x52908400098527886E0F7030069857D2E4169EE7",
    "0xde709f2102306220921060314715629080e2fb77",
]
HASH = "0x" + "0123456789abcdef" * 4


class Row(models.Model):
    amount = AmountField(null=True)
    address = AddressField(null=True)
    hash = HashField(null=True)

    class Meta:
        app_label = "core_tests"
        managed = False
        db_table = "test_row"

    def __str__(self) -> str:
        return "row"


@pytest.fixture(autouse=True)
def _table(db):
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE TEMP TABLE test_row (id bigserial, amount numeric(38, 0), address bytea, hash bytea) ON COMMIT DROP"
        )


def stored(**values):
    row = Row.objects.create(**values)
    return Row.objects.get(pk=row.pk)


@pytest.mark.parametrize("amount", [0, 1, -1, 10**18, 10**38 - 1, -(10**38) + 1])
def test_an_amount_stays_the_whole_number_it_was(amount):
    found = stored(amount=amount).amount
    assert (found, type(found)) == (amount, int)
    assert Row.objects.filter(amount=amount).count() == 1


def test_an_amount_beyond_its_digits_is_refused():
    with pytest.raises(DataError), transaction.atomic():
        Row.objects.create(amount=10**38)
    assert not Row.objects.exists()


@pytest.mark.parametrize("amount", [1.5, Decimal("0.1"), "1.5", "many", float("nan")])
def test_no_part_of_a_unit_is_cut_off_silently(amount):
    with pytest.raises((ValidationError, ValueError)), transaction.atomic():
        Row.objects.create(amount=amount)
    assert not Row.objects.exists()


def test_amounts_add_up_exactly():
    for amount in (10**37, 10**37 + 1, -3):
        Row.objects.create(amount=amount)
    assert Row.objects.aggregate(total=models.Sum("amount"))["total"] == 2 * 10**37 - 2


@pytest.mark.parametrize("address", EIP55)
def test_an_address_comes_back_with_its_checksum_however_it_was_written(address):
    for written in (address, address.lower(), "0x" + address[2:].upper(), address[2:], bytes.fromhex(address[2:])):
        assert stored(address=written).address == address
    assert Row.objects.filter(address=address.lower()).count() == 5
    assert checksum(bytes.fromhex(address[2:])) == address


def test_a_hash_comes_back_in_lower_case():
    assert stored(hash=HASH.upper().replace("0X", "0x")).hash == HASH
    assert stored(hash=bytes.fromhex(HASH[2:])).hash == HASH
    assert Row.objects.filter(hash=HASH).count() == 2


def test_nothing_stays_nothing():
    row = stored()
    assert (row.amount, row.address, row.hash) == (None, None, None)


@pytest.mark.parametrize("wrong", ["", "0x", HASH[:-1], HASH[:-2], HASH + "00", "0x" + "zz" * 32, "hash", EIP55[0]])
def test_text_that_is_no_hash_is_refused(wrong):
    with pytest.raises(ValidationError):
        Row.objects.create(hash=wrong)


@pytest.mark.parametrize("wrong", [b"", b"1" * 31, b"1" * 33])
def test_bytes_of_another_length_are_refused_too(wrong):
    with pytest.raises(ValidationError):
        Row.objects.create(hash=wrong)
