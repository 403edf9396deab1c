"""Deploys the contracts once per network; safe to repeat and to interrupt."""

import time
from typing import Final

import rlp  # type: ignore[import-untyped]
from django.conf import settings

from aitbc.chain import keystore
from aitbc.chain.abi import interface
from aitbc.chain.client import Client, Receipt
from aitbc.chain.models import Deployment, SignedTransaction
from aitbc.chain.reads import read_each
from aitbc.chain.signing import checksum_address, keccak, parse_address
from aitbc.chain.transactions import estimate, sign_and_store
from aitbc.core.errors import Conflict, Unavailable

RECEIPT_SECONDS: Final = 60.0
ETHER: Final = 10**18


def deploy(
    client: Client, *, daily_cap: int, approval_threshold: int, token: str | None = None
) -> dict[str, Deployment]:
    """AIT (or the given `token`) and Settlement with its forwarder; returns the rows of this network.

    The limits of Settlement are in units of 10**-18 AIT.
    """
    if settings.CHAIN_EMBEDDED:
        _fund(client, [keystore.load_or_create(role).address for role in keystore.ROLES])
    who = {role: keystore.address(role) for role in keystore.ROLES}
    deployer, owner = keystore.load("deployer"), who["owner"]
    ait = _adopt(token, client) if token else _deploy(client, deployer, "AIT", owner)
    roles = [who[role] for role in ("operator", "approver", "guardian")]
    limits = [str(daily_cap), str(approval_threshold)]
    settlement = _deploy(client, deployer, "Settlement", ait.address, owner, *roles, *limits)
    [address] = read_each(client, "Settlement", "FORWARDER", [[]], block=client.head())
    forwarder = _record("DepositForwarder", address, settlement.tx_hash, settlement.block_number)
    return {row.name: row for row in (ait, settlement, forwarder)}


def _fund(client: Client, addresses: list[str]) -> None:
    """Embedded chain only: gas for whoever sends transactions."""
    head = client.head()
    for address in addresses:
        if client.balance(address, head) < ETHER:
            client.call("anvil_setBalance", address, hex(1_000 * ETHER))


def _adopt(address: str, client: Client) -> Deployment:
    head = client.head()
    if client.code(address, head) == "0x":
        raise Conflict("chain.contract_missing", f"there is no contract at {address}")
    return _record("AIT", checksum_address(parse_address(address)), "0x" + "00" * 32, head)


def _record(name: str, address: str, tx_hash: str, block: int | None) -> Deployment:
    fields = {"address": address, "tx_hash": tx_hash, "block_number": block}
    row, _ = Deployment.objects.update_or_create(network=settings.CHAIN_NETWORK, name=name, defaults=fields)
    return row


def _deploy(client: Client, signer: keystore.Signer, name: str, *args: str) -> Deployment:
    """The address is recorded before the transaction is sent, so a second run can never make a twin."""
    row = Deployment.objects.filter(network=settings.CHAIN_NETWORK, name=name).first()
    if row and client.code(row.address, client.head()) != "0x":
        if row.block_number is not None:
            return row
    elif row:
        stored = SignedTransaction.objects.filter(tx_hash=row.tx_hash).first()
        if stored is None:
            raise Conflict("chain.contract_missing", f"{name} is gone from {row.address}: the chain was reset")
        client.send_raw(bytes(stored.raw))
    else:
        row = _create(client, signer, name, *args)
    receipt = _wait(client, row.tx_hash)
    if not receipt.succeeded:
        raise Conflict("chain.reverted", f"the deployment of {name} was reverted")
    return _record(name, row.address, row.tx_hash, receipt.block_number)


def created_address(sender: str, nonce: int) -> str:
    """Where a contract created by `sender` with `nonce` lies (Yellow Paper, section 7)."""
    return checksum_address(keccak(rlp.encode([parse_address(sender), nonce]))[12:])


def _create(client: Client, signer: keystore.Signer, name: str, *args: str) -> Deployment:
    data = interface(name).creation(*args)
    gas = estimate(client, sender=signer.address, to=None, data=data)
    stored = sign_and_store(client, signer, to=None, data=data, gas=gas, epoch=0)
    address = created_address(signer.address, stored.nonce)
    row = _record(name, address, stored.tx_hash, None)
    client.send_raw(bytes(stored.raw))
    return row


def _wait(client: Client, tx_hash: str) -> Receipt:
    deadline = time.monotonic() + RECEIPT_SECONDS
    while time.monotonic() < deadline:
        receipt = client.receipt(tx_hash)
        if receipt is not None:
            return receipt
        time.sleep(0.05)
    raise Unavailable("chain.not_mined", f"{tx_hash} was not mined within {RECEIPT_SECONDS:.0f} s")


def resend_all(client: Client) -> int:
    """Send all stored transactions in their order; returns how many the chain did not have.

    Same bytes, same hashes and addresses: what was final once is found again under its identity.
    """
    stored = list(SignedTransaction.objects.order_by("id"))
    _fund(client, sorted({item.sender for item in stored}))
    missing = [item for item in stored if client.receipt(item.tx_hash) is None]
    for item in missing:
        try:
            client.send_raw(bytes(item.raw))
        except Conflict as refusal:
            if refusal.code != "chain.nonce_too_low":  # a replacement with this nonce was mined
                raise
    for row in Deployment.objects.filter(network=settings.CHAIN_NETWORK, name__in=("AIT", "Settlement")):
        _record(row.name, row.address, row.tx_hash, _wait(client, row.tx_hash).block_number)
    return len(missing)
