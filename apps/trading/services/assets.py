"""The assets this ledger knows."""

from apps.trading.models import Asset

DEFINITIONS = (Asset(code="AIT", name="AITBC token", decimals=18),)


def seed(database: str) -> None:
    Asset.objects.using(database).bulk_create(DEFINITIONS, ignore_conflicts=True)
