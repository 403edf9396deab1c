"""Steps in which the client's own money moves: by the second, to the chain, and into a proof that it is there."""

import json
import time
from decimal import Decimal
from typing import Final

from aitbc.chain import signing
from aitbc.demo.client import JSON
from aitbc.demo.failure import require, wait_for
from aitbc.demo.report import Step
from aitbc.demo.stage import PROVIDERS, Stage
from aitbc.stack import process

_DEPOSIT: Final = Decimal("0.5")
_RATES: Final = dict(zip(PROVIDERS, ("0.02", "0.04"), strict=True))  # AIT per second
_WITHDRAWN: Final = Decimal("1.25")


def ait(amount: object) -> JSON:
    return {"amount": str(amount), "asset": "AIT"}


def stream(stage: Stage, step: Step) -> None:
    """Prepaid money runs to two payees for some seconds; what was not used returns, and nothing is lost."""
    people = stage.state.people
    body = {
        "payees": {people[name]["id"]: ait(rate) for name, rate in _RATES.items()},
        "deposit": ait(_DEPOSIT),
        "warn_seconds": 1,
    }
    opened = stage.client.send("POST", "/v1/streams", 201, json=body).json()
    time.sleep(3)
    closed = stage.client.send("POST", f"/v1/streams/{opened['id']}/close").json()
    paid = [Decimal(payee["paid"]["amount"]) + Decimal(payee["fee"]["amount"]) for payee in closed["payees"]]
    returned = sum(Decimal(part["returned"]["amount"]) for part in closed["deposits"])
    require(min(paid) > 0, f"the stream paid {paid}")
    require(sum(paid) + returned == _DEPOSIT, f"{sum(paid)} paid and {returned} returned are not {_DEPOSIT} AIT")
    step.detail = f"{sum(paid)} of {_DEPOSIT} AIT ran to {len(paid)} payees in 3 s, {returned} returned"


def withdraw(stage: Stage, step: Step) -> None:
    """Held, sent by the operator, posted at its final event; the tokens lie at the address."""
    address = signing.address_of(signing.new_private_key())
    body = ait(_WITHDRAWN) | {"address": address}
    asked = stage.client.send("POST", "/v1/withdrawals", 201, json=body).json()

    def finished() -> JSON | None:
        found = stage.client.get(f"/v1/withdrawals/{asked['id']}")
        return found if found["state"] not in ("waiting", "sending") else None

    done = wait_for(finished, seconds=60, what="the withdrawal is final", log="log/chain.log")
    arrived = Decimal(stage.node.balance(address)) / 10**18
    require((done["state"], arrived) == ("final", _WITHDRAWN), f"{done['state']}, and {arrived} AIT arrived")
    step.detail = f"{_WITHDRAWN} AIT arrived at {address} in block {done['block']}"


def prove_liabilities(stage: Stage, step: Step) -> None:
    """Every balance in a tree whose sum the reserves cover; the client checks his place offline, and a proof
    of one unit less is refused."""
    process.manage("prove_liabilities")
    public = stage.client.get("/v1/liabilities")
    proof = stage.client.get("/v1/liabilities/proof")
    require(public["covered"], f"the reserves do not cover what is owed: {public}")
    require((proof["root"], proof["total"]) == (public["root"], public["total"]), "another root than the public one")
    require(_accepted(stage, proof), "the client's proof is not valid")
    require(not _accepted(stage, proof | {"amount": str(int(proof["amount"]) - 1)}), "a unit less is accepted too")
    step.detail = (
        f"{Decimal(public['total']) / 10**18} AIT owed to {public['users']} users, {public['onchain']} on the chain; "
        f"the client's leaf verified offline under root {public['root'][:18]}"
    )


def _accepted(stage: Stage, proof: JSON) -> bool:
    file = stage.folder / "liability.json"
    file.write_text(json.dumps(proof))
    return process.manage("verify_liability", str(file), check=False).returncode == 0
