"""The only process that sends transactions of a network: requested -> signed -> broadcast -> mined -> final.

Order of the writes of one intent: signed bytes into chain.db, then nonce and hash into PostgreSQL, and
only then the network. Killed anywhere, the next worker finds either nothing signed, or the bytes, or the
nonce that any other bytes must use; and the contract refuses a used id. So at most one transaction of an
intent is ever mined, also when chain.db is lost (protocols 2 and 3).
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from aitbc.chain import indexer, keystore
from aitbc.chain.abi import interface
from aitbc.chain.client import Client, Receipt
from aitbc.chain.intents import address_of
from aitbc.chain.models import Block, Intent, Log, NetworkStatus, SignedTransaction
from aitbc.chain.reads import read_each
from aitbc.chain.transactions import estimate, sign_and_store
from aitbc.core import ports
from aitbc.core.errors import Conflict, Unavailable
from aitbc.core.outbox import announce

log = structlog.get_logger(__name__)
State = Intent.State
STUCK_SECONDS: Final = 60.0
BLOCK_SECONDS: Final = 1.0
IMPORT_LIMIT: Final = 200
NOBODY: Final = "0x" + "00" * 20
# What a retry can never cure; everything else that reverts in a simulation waits and is tried again.
PERMANENT: Final = frozenset({"IdUsed", "ZeroValue", "NotApproved"})
# Calls of Settlement, and what it answers of their id: whether it is used, or the root held for it.
EFFECTS: Final = {"withdraw": "used", "anchor": "anchored", "openPayout": "payouts"}


class Superseded(Exception):
    """Another worker has taken over this network."""


class Worker:
    def __init__(self, client: Client, *, block_seconds: float = BLOCK_SECONDS) -> None:
        """Take the network over: from now on every older worker is fenced off."""
        self.client = client
        self.network: str = settings.CHAIN_NETWORK
        self._block_seconds = block_seconds
        self._mined_at = time.monotonic()
        self._signers: dict[str, keystore.Signer] = {}
        self.epoch = self._take_over()

    def _take_over(self) -> int:
        with transaction.atomic():
            NetworkStatus.objects.get_or_create(network=self.network, defaults={"chain_id": self.client.chain_id})
            NetworkStatus.objects.filter(network=self.network).update(epoch=F("epoch") + 1)
            status = NetworkStatus.objects.select_for_update().get(network=self.network)
        if status.chain_id != self.client.chain_id:
            raise Unavailable("chain.wrong_chain", f"{self.network} was chain {status.chain_id} before")
        return status.epoch

    @contextmanager
    def _fenced(self) -> Iterator[NetworkStatus]:
        """A transaction in which this worker is still the one; saves the status at its end."""
        with transaction.atomic():
            status = NetworkStatus.objects.select_for_update().get(network=self.network)
            if status.epoch != self.epoch:
                raise Superseded(f"epoch {status.epoch} has replaced {self.epoch}")
            yield status
            status.save()

    # -- one round -----------------------------------------------------------------------------
    def tick(self) -> bool:
        """One round over blocks, events and intents; whether anything is not final yet."""
        try:
            height = self._index()
        except indexer.DeepReorganisation as error:
            self._halt(str(error))
            return False
        if height is None:
            return False
        if self._unfinished(height):
            self._mine()
        self._repeat(indexer.dispatch)
        self._advance(height)
        return self._unfinished(height)

    def _index(self) -> int | None:
        """Height of the chain after reading on; None while the network is halted."""
        status = NetworkStatus.objects.get(network=self.network)
        if status.halted:
            return None
        height = indexer.follow(self.client, network=self.network, final_height=status.final_height)
        self._repeat(partial(indexer.project, height=height))
        return height

    def _repeat(self, step: Callable[[NetworkStatus], bool]) -> None:
        """A step of bounded size after the other, each in a transaction of its own, until all is done."""
        more = True
        while more:
            with self._fenced() as status:
                more = step(status)

    def _halt(self, reason: str) -> None:
        log.critical("network halted", network=self.network, reason=reason)
        with self._fenced() as status:
            status.halted = reason
            announce("chain.halted", f"chain:{self.network}", {"reason": reason})

    def _unfinished(self, height: int) -> bool:
        """Whether more blocks bring anything: a log or an intent that is not final yet."""
        # No block helps what the contract refuses for now, nor what could not be booked.
        waiting = [State.REQUESTED, State.MINED]
        hopeful = Intent.objects.open().exclude(state__in=waiting, error__gt="")
        final = height - settings.CHAIN_FINALITY_DEPTH
        return (
            hopeful.filter(network=self.network).exists()
            or Log.objects.filter(block_id__gt=final).exists()
            or not self._has_state(final)
        )

    def _mine(self) -> None:
        """The embedded chain gets a block a second, so that its state file always holds what is final."""
        if settings.CHAIN_EMBEDDED and time.monotonic() - self._mined_at >= self._block_seconds:
            self.client.call("evm_mine")
            self._mined_at = time.monotonic()

    def _has_state(self, final: int) -> bool:
        """An embedded node that was started again knows the state of its last block only: until that one
        is final, the reserves cannot be compared."""
        if final < 1 or not settings.CHAIN_EMBEDDED:
            return True
        try:
            self.client.balance(NOBODY, final)
        except Unavailable:
            return False
        return True

    # -- intents -------------------------------------------------------------------------------
    def _advance(self, height: int) -> None:
        steps = {State.REQUESTED: self._sign, State.SIGNED: self._broadcast}
        intents = Intent.objects.open().filter(network=self.network).order_by("error", "created_at", "id")
        for intent in intents[:IMPORT_LIMIT]:
            try:
                steps.get(State(intent.state), self._track)(intent, height)
            except Conflict as refusal:
                if intent.error != refusal.message:
                    log.warning("intent waits", intent=str(intent.id), code=refusal.code, reason=refusal.message)
                    self._save(intent, error=refusal.message)

    def _save(self, intent: Intent, **changes: object) -> None:
        """Write a step of `intent` unless it was resolved meanwhile or another worker took over."""
        changes["updated_at"] = timezone.now()
        with self._fenced():
            changed = Intent.objects.open().filter(pk=intent.pk).update(**changes)
        if changed:
            for name, value in changes.items():
                setattr(intent, name, value)

    def _signer(self, role: str) -> keystore.Signer:
        if role not in self._signers:
            self._signers[role] = keystore.load(role)
        return self._signers[role]

    def _sign(self, intent: Intent, height: int) -> None:
        """Store signed bytes, then the nonce in PostgreSQL; nothing leaves this host here."""
        stored = self._attempts(intent)
        if not stored:
            try:
                stored = [self._store_bytes(intent)]
            except Conflict as refusal:
                if refusal.code != "chain.reverted" or refusal.context.get("reason") not in PERMANENT:
                    raise
                final = height - settings.CHAIN_FINALITY_DEPTH
                return self._resolve_by_effect(intent, max(final, 0), otherwise=refusal.message)
        latest = stored[-1]
        self._save(intent, state=State.SIGNED, sender=latest.sender, nonce=latest.nonce, tx_hash=latest.tx_hash)
        self._broadcast(intent, height)

    def _attempts(self, intent: Intent) -> list[SignedTransaction]:
        return list(SignedTransaction.objects.filter(intent_id=intent.id).order_by("attempt"))

    def _store_bytes(self, intent: Intent, *, gas: int | None = None) -> SignedTransaction:
        signer = self._signer(intent.role)
        to = address_of(intent.contract)
        data = interface(intent.contract).call_data(intent.function, intent.args)
        gas = gas or estimate(self.client, sender=signer.address, to=to, data=data)
        with self._fenced():
            pass  # still the one? after this only chain.db's unique constraints stop a second worker
        return sign_and_store(
            self.client, signer, to=to, data=data, gas=gas, epoch=self.epoch, nonce=intent.nonce, intent_id=intent.id
        )

    def _broadcast(self, intent: Intent, height: int) -> None:
        stored = self._attempts(intent)
        if not stored:
            return self._track(intent, height)
        try:
            self.client.send_raw(bytes(stored[-1].raw))
        except Conflict as refusal:
            if refusal.code == "chain.underpriced":
                return self._replace(intent)
            if refusal.code not in ("chain.already_known", "chain.nonce_too_low"):
                raise
        self._save(intent, state=State.BROADCAST, error="")

    def _replace(self, intent: Intent) -> None:
        """The same nonce and payload at a higher fee: at most one of the two is mined.

        The gas stays: a simulation beside the first one in the pool would find the id used.
        """
        earlier = self._attempts(intent)
        replacement = self._store_bytes(intent, gas=earlier[-1].gas if earlier else None)
        self._save(intent, state=State.SIGNED, tx_hash=replacement.tx_hash)

    def _track(self, intent: Intent, height: int) -> None:
        if self._track_mined(intent, height):
            return
        if intent.state == State.MINED:  # its block was reorganised away
            self._save(intent, state=State.BROADCAST, block_number=None)
        stored = self._attempts(intent)
        known = self.client.knows(stored[-1].tx_hash if stored else str(intent.tx_hash))
        if not stored:  # chain.db lost the bytes, so ask the chain before signing anew with the same nonce
            return None if known or self._effect(intent, height) else self._replace(intent)
        if not known:
            return self._broadcast(intent, height)
        stuck = time.time() - stored[-1].created_at.timestamp() > STUCK_SECONDS
        # Only the lowest open nonce is held up by its own fee; all above it wait for it.
        if stuck and self.client.nonce(stored[-1].sender, height) == stored[-1].nonce:
            self._replace(intent)

    def _track_mined(self, intent: Intent, height: int) -> bool:
        """Follow a receipt of any attempt; True when one exists or the nonce is spent for good."""
        hashes = [str(intent.tx_hash), *(s.tx_hash for s in self._attempts(intent))]
        found = [receipt for receipt in self.client.receipts(list(dict.fromkeys(hashes))) if receipt]
        if found:
            self._follow_receipt(intent, found[0], height)
            return True
        final = height - settings.CHAIN_FINALITY_DEPTH
        if intent.sender is None or final < 0 or self.client.nonce(intent.sender, final) <= (intent.nonce or 0):
            return False
        self._resolve_by_effect(intent, final, otherwise="another transaction used the nonce")
        return True

    def _follow_receipt(self, intent: Intent, receipt: Receipt, height: int) -> None:
        held = Block.objects.filter(number=receipt.block_number, hash=receipt.block_hash).exists()
        fields = {"tx_hash": receipt.tx_hash, "block_number": receipt.block_number, "gas_used": receipt.gas_used}
        if not held or receipt.block_number > height - settings.CHAIN_FINALITY_DEPTH:
            if intent.state != State.MINED or intent.block_number != receipt.block_number:
                self._save(intent, state=State.MINED, **fields)
        elif receipt.succeeded:
            self._finish(intent, State.FINAL, **fields, error="")
        else:
            self._finish(intent, State.FAILED, **fields, error="the transaction was reverted")

    def _resolve_by_effect(self, intent: Intent, final: int, *, otherwise: str) -> None:
        """No transaction of ours can be mined any more: the contract knows whether one was."""
        if not self._effect(intent, final):
            return self._finish(intent, State.FAILED, error=otherwise)
        entry = Log.objects.filter(topics__1=intent.args[0], block_id__lte=final).first()
        if entry is not None:  # else the indexer has not read that far yet
            self._finish(intent, State.FINAL, tx_hash=entry.tx_hash, block_number=entry.block_id, error="")

    def _effect(self, intent: Intent, block: int) -> bool:
        """Whether the contract already holds what `intent` asks for."""
        if intent.contract != "Settlement" or intent.function not in EFFECTS:
            return False
        calls = [intent.args[:1]]
        [held] = read_each(self.client, "Settlement", EFFECTS[intent.function], calls, block=block)
        return bool(held == (True if intent.function == "withdraw" else intent.args[1]))

    def _finish(self, intent: Intent, state: Intent.State, **fields: object) -> None:
        """Resolve once, with the subscribers' effects in the same transaction.

        If one of them fails, all of it is undone and tried again in the next round; other intents go on.
        """
        try:
            self._resolve(intent, state, fields)
        except Superseded:
            raise
        except Exception as error:
            log.exception("a resolved intent could not be booked", intent=str(intent.pk), kind=intent.kind)
            self._save(intent, error=f"resolved but not booked: {error}")
        else:
            log.info("intent resolved", intent=str(intent.pk), kind=intent.kind, state=state)

    def _resolve(self, intent: Intent, state: Intent.State, fields: dict[str, object]) -> None:
        with self._fenced():
            if Intent.objects.open().filter(pk=intent.pk).update(state=state, **fields):
                intent.refresh_from_db()
                for handle in ports.subscribers(f"chain.intent:{intent.kind}"):
                    handle(intent)
