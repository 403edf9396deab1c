"""The chain's figures for the console, as every host may read them: from PostgreSQL, never from a node."""

from django.conf import settings

from aitbc.chain.models import Intent, NetworkStatus


def network() -> NetworkStatus | None:
    """What the chain worker last reported; None before it ever ran."""
    return NetworkStatus.objects.filter(network=settings.CHAIN_NETWORK).first()


def open_intents() -> int:
    """Wanted effects that are neither final nor failed."""
    return Intent.objects.open().filter(network=settings.CHAIN_NETWORK).count()
