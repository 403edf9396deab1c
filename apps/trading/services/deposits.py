"""Deposits: a keyless address per user, credited from final logs only, once per log (protocols 4, 5)."""

from typing import Final
from uuid import UUID, uuid5

from django.conf import settings
from django.db import transaction
from django.db.models import Q

from aitbc.accounts.models import User
from aitbc.chain import intents
from aitbc.chain.addresses import bytes32, clone_address, user_of
from aitbc.chain.models import FinalEvent, NetworkStatus
from apps.trading.models import Deposit, DepositAddress
from apps.trading.services import ledger

TREASURY: Final = UUID(int=0)  # stands for "no user" where the chain wants an id
_NAMESPACE: Final = UUID("6f1f9f0a-5c1e-5e0e-9a53-6d1f1c0a7b11")


def deposit_address(*, user: UUID | None) -> str:
    """The user's address on this network (None: the treasury's), made when first asked for.

    Tokens that arrived before anybody was told of the address are credited now, in order with the
    chain worker: both hold the network's row.
    """
    network = settings.CHAIN_NETWORK
    found = DepositAddress.objects.filter(Q(user=user), network=network).first()
    if found is not None:
        return str(found.address)
    address = clone_address(
        deployer=intents.address_of("Settlement"),
        implementation=intents.address_of("DepositForwarder"),
        salt=bytes.fromhex(bytes32(user or TREASURY)[2:]),
    )
    with transaction.atomic():
        status = NetworkStatus.objects.select_for_update().filter(network=network).first()
        _, created = DepositAddress.objects.get_or_create(network=network, user_id=user, defaults={"address": address})
        if created and status is not None:
            _credit_earlier(status, address)
    return address


def _credit_earlier(status: NetworkStatus, address: str) -> None:
    consumed = FinalEvent.objects.filter(
        network=status.network, contract="AIT", name="Transfer", id__lte=status.event_cursor
    )
    swept = consumed.filter(args__from=address).order_by("-id").first()  # booked as unattributed then
    for event in consumed.filter(args__to=address, id__gt=swept.id if swept else 0).order_by("id"):
        receive_transfer(event)


def receive_transfer(event: FinalEvent) -> None:
    """A final Transfer of AIT: to a deposit address, or to the contract without anybody's call."""
    to, sender = event.args["to"], event.args["from"]
    target = DepositAddress.objects.filter(network=event.network, address=to).first()
    if target is not None:
        _book(event, event_key(event), user=target.user_id, treasury=target.user_id is None)
        _request_sweep(event, target)
    elif to == intents.address_of("Settlement"):
        swept = DepositAddress.objects.filter(network=event.network, address=sender).exists()
        if not swept and not _is_called_deposit(event):
            _book(event, event_key(event), user=None)


def receive_deposited(event: FinalEvent) -> None:
    """A final Deposited of the settlement contract, for the user it names if there is one."""
    user = user_of(event.args["user"])
    key = f"{event.network}:{intents.address_of('Settlement')}:{event.args['depositId']}"
    if user == TREASURY:
        _book(event, key, user=None, treasury=True)
    else:
        _book(event, key, user=user if user and User.objects.filter(pk=user).exists() else None)


def event_key(event: FinalEvent) -> str:
    """Identity of a plain transfer: the same in whatever block the transaction is mined."""
    return f"{event.network}:{event.tx_hash}:{event.ordinal}"


def _is_called_deposit(event: FinalEvent) -> bool:
    """Whether the contract itself took the tokens: its Deposited is the next log of the transaction."""
    following = FinalEvent.objects.filter(
        network=event.network, tx_hash=event.tx_hash, ordinal=event.ordinal + 1, name="Deposited"
    ).first()
    return following is not None and (following.args["from"], following.args["amount"]) == (
        event.args["from"],
        event.args["value"],
    )


def _book(event: FinalEvent, key: str, *, user: UUID | None, treasury: bool = False) -> None:
    """Mirror account -> whoever gets it; the transfer's id comes from the log's identity."""
    amount = int(event.args.get("value") or event.args["amount"])
    if amount == 0:
        return
    transfer = uuid5(_NAMESPACE, key)
    kind = "available" if user else "treasury" if treasury else "unattributed"
    chain = event.network if kind == "unattributed" else ""
    mirror = ledger.account_id(owner=None, kind="external", chain=event.network)
    receiver = ledger.account_id(owner=user, kind=kind, chain=chain)
    booking = "deposit" if kind != "unattributed" else "deposit.stray"
    ledger.apply_all([ledger.Item(transfer, "transfer", booking, mirror, receiver, amount)])
    Deposit.objects.get_or_create(
        id=transfer,
        defaults={
            "network": event.network,
            "user_id": user,
            "booked": "user" if user else kind,
            "asset": "AIT",
            "amount": amount,
            "sender": event.args["from"],
            "address": event.args.get("to") or intents.address_of("Settlement"),
            "tx_hash": event.tx_hash,
            "ordinal": event.ordinal,
            "block_number": event.block_number,
        },
    )


def _request_sweep(event: FinalEvent, target: DepositAddress) -> None:
    """Have the tokens moved into the contract, from where payouts are paid; value stays ours."""
    if int(event.args["value"]) > 0:
        args = [bytes32(target.user_id or TREASURY)]
        intents.request_intent("settlement.sweep", f"sweep:{event_key(event)}", "sweep", args)
