"""Which chain this installation settles on."""

from django.conf import settings


def chain_id() -> int:
    """The chain id of CHAIN_NETWORK, as configured; the client refuses a node that says otherwise."""
    found: int = settings.CHAIN_ID
    return found
