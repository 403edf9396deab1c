"""The assets this ledger knows."""

from apps.trading.models import Account, Asset

FEE_SHARDS = 16  # `payments_settle` spreads fees over as many
DEFINITIONS = (
    Asset(code="AIT", name="AITBC token", decimals=18),
    Asset(code="CREDIT", name="Credit of this platform", decimals=18),  # protocols 7: it never leaves
)


def seed(database: str) -> None:
    Asset.objects.using(database).bulk_create(DEFINITIONS, ignore_conflicts=True)
    # All shards at once: settlements of a first day would make them in each other's way.
    Account.objects.using(database).bulk_create(
        [
            Account(asset=asset, kind=Account.Kind.FEES, shard=shard)
            for asset in DEFINITIONS
            for shard in range(FEE_SHARDS)
        ],
        ignore_conflicts=True,
    )
