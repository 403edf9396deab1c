"""Model fields for chain values: bytes in the database, checked text in Python."""

from decimal import Decimal
from typing import Any

import sha3
from django.core.exceptions import ValidationError
from django.db import models


class AmountField(models.DecimalField[Any, Any]):
    """NUMERIC(38,0) in the database, `int` of smallest units in Python."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"max_digits": 38, "decimal_places": 0, **options})

    def from_db_value(self, value: Decimal | None, *_: object) -> int | None:
        return None if value is None else int(value)

    def to_python(self, value: Any) -> Any:
        return value if value is None else int(value)

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        if value is None:
            return None
        whole = int(value)
        if not isinstance(value, str) and whole != value:
            raise ValidationError(f"an amount is a whole number of smallest units, not {value}")
        return Decimal(whole)


class _HexField(models.BinaryField):  # type: ignore[type-arg]  # generic only in some releases of the stubs
    """Fixed-length bytes shown as 0x-prefixed hexadecimal."""

    length = 0

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"editable": True, "max_length": self.length, **options})

    def from_db_value(self, value: Any, *_: object) -> str | None:
        return None if value is None else self.show(bytes(value))

    def show(self, raw: bytes) -> str:
        return "0x" + raw.hex()

    def to_python(self, value: Any) -> Any:
        return value

    def get_db_prep_value(self, value: Any, connection: Any, prepared: bool = False) -> Any:
        if value is not None:
            value = self._parse(value)
        return super().get_db_prep_value(value, connection, prepared)

    def _parse(self, value: str | bytes | memoryview) -> bytes:
        try:
            raw = bytes.fromhex(value.removeprefix("0x")) if isinstance(value, str) else bytes(value)
        except ValueError as error:
            raise ValidationError(f"{value!r} is not hexadecimal") from error
        if len(raw) != self.length:
            raise ValidationError(f"expected {self.length} bytes, got {len(raw)}")
        return raw


class HashField(_HexField):
    """32 bytes: a Keccak or SHA-256 digest."""

    length = 32


class AddressField(_HexField):
    """20 bytes of an account, shown with the EIP-55 checksum."""

    length = 20

    def show(self, raw: bytes) -> str:
        return checksum(raw)


def checksum(raw: bytes) -> str:
    """EIP-55 mixed-case form of a 20-byte address."""
    text = raw.hex()
    digest = sha3.keccak_256(text.encode()).hexdigest()
    return "0x" + "".join(c.upper() if int(d, 16) > 7 else c for c, d in zip(text, digest, strict=False))
