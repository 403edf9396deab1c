"""What an operator does to a miner; the miner's own word is in `services.miners`."""

from uuid import UUID

from django.db import transaction

from aitbc.core.errors import Conflict, NotFound
from aitbc.core.outbox import announce
from apps.gpu.models import Miner
from apps.gpu.services import miners


@transaction.atomic
def drain(*, miner: UUID) -> Miner:
    """It finishes what it holds and gets no more; Conflict unless it takes work now."""
    found = _locked(miner, "drained", Miner.State.ONLINE, Miner.State.SUSPECT)
    return miners.drain(key=found.key_id)


@transaction.atomic
def suspend(*, miner: UUID) -> Miner:
    """It gets no more work and its leases go back to the queue; Conflict if it is suspended already."""
    others = [state for state in Miner.State if state != Miner.State.SUSPENDED]
    found = _locked(miner, "suspended", *others)
    miners.leave(found, Miner.State.SUSPENDED, "miner.suspended", "the platform suspended the miner")
    found.refresh_from_db()
    return found


@transaction.atomic
def resume(*, miner: UUID) -> Miner:
    """A drained or suspended miner may work again: suspect until its next heartbeat says that it lives."""
    found = _locked(miner, "resumed", Miner.State.DRAINING, Miner.State.SUSPENDED)
    Miner.objects.filter(pk=found.pk).update(state=Miner.State.SUSPECT)
    announce("gpu.miner_registered", f"miner:{found.pk}", {"miner": str(found.pk)})
    found.refresh_from_db()
    return found


def _locked(miner: UUID, verb: str, *states: Miner.State) -> Miner:
    found = Miner.objects.select_for_update(no_key=True).filter(pk=miner).first()
    if found is None:
        raise NotFound("miner.unknown", "there is no such miner")
    if found.state not in states:
        raise Conflict("miner.state", f"a miner that is {found.state} cannot be {verb}", state=found.state)
    return found
