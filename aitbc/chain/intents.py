"""Intents of record: what business code asks of the chain, in the transaction of its own rows."""

from collections.abc import Sequence
from typing import Any

import rfc8785
from django.conf import settings

from aitbc.chain.abi import interface
from aitbc.chain.models import Deployment, Intent
from aitbc.chain.signing import keccak
from aitbc.core import db
from aitbc.core.errors import Conflict, Unavailable


def request_intent(
    kind: str,
    business_key: str,
    function: str,
    args: Sequence[Any],
    *,
    contract: str = "Settlement",
    role: str = "operator",
) -> Intent:
    """The intent of `business_key`, made in the caller's transaction or found again.

    `args` are JSON values: amounts as decimal strings, bytes and addresses as hex. When it is final
    or failed, the subscribers of `chain.intent:<kind>` are called with it in one transaction.
    Conflict "chain.intent_differs" if the key exists with another payload.
    """
    db.inside_transaction()
    interface(contract).call_data(function, args)  # refuses what could never be sent
    payload = [settings.CHAIN_NETWORK, kind, contract, function, list(args), role]
    fields = {
        "kind": kind,
        "contract": contract,
        "function": function,
        "args": list(args),
        "role": role,
        "payload_hash": "0x" + keccak(rfc8785.dumps(payload)).hex(),
    }
    intent, _ = Intent.objects.get_or_create(network=settings.CHAIN_NETWORK, business_key=business_key, defaults=fields)
    if intent.payload_hash != fields["payload_hash"]:
        raise Conflict("chain.intent_differs", f"{business_key} was requested with another payload")
    return intent


def address_of(name: str) -> str:
    """Where a contract lies on this network; Unavailable "chain.not_deployed"."""
    found = Deployment.objects.filter(network=settings.CHAIN_NETWORK, name=name).first()
    if found is None:
        raise Unavailable("chain.not_deployed", f"{name} is not deployed on {settings.CHAIN_NETWORK}")
    return str(found.address)
