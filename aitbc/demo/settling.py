"""Steps in which value settles: receipts anchored, payouts claimed, ledger and reserves proven."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from aitbc.chain.keystore import Signer
from aitbc.demo import commands, offline
from aitbc.demo.client import JSON, chunks
from aitbc.demo.failure import require, wait_for
from aitbc.demo.report import Step
from aitbc.demo.stage import PROVIDERS, Stage


def settle(stage: Stage, step: Step) -> None:
    """Every receipt must be in a batch whose root a final transaction holds; the chain is asked itself."""
    done = 0
    for chunk in chunks(stage.job_ids):
        stage.results |= _wait_for_anchors(stage, list(chunk))
        done += len(chunk)
        stage.tell(f"{done} of {len(stage.job_ids)} receipts anchored")
    stage.report.jobs = len(stage.job_ids)
    batches = _check_batches(stage)
    newest = batches[0]
    stage.report.settlement = {name: newest[name] for name in ("id", "tx_hash", "root", "gas_used", "block")}
    step.detail = (
        f"{len(stage.job_ids)} receipts in {len(batches)} batches, all roots found on the chain; "
        f"the last in block {newest['block']} for {newest['gas_used']} gas"
    )


def _wait_for_anchors(stage: Stage, jobs: list[str]) -> dict[str, JSON]:
    return wait_for(
        lambda: _anchored(stage, jobs),
        seconds=90,
        what="the receipts are anchored",
        log=stage.log("chain.log"),
        pause=0.5,
    )


def _anchored(stage: Stage, jobs: list[str]) -> dict[str, JSON] | None:
    found = stage.client.results(jobs)
    complete = len(found) == len(jobs) and all(item["receipt"]["anchor"] for item in found.values())
    return found if complete else None


def _check_batches(stage: Stage) -> list[JSON]:
    """The settlement batches of our receipts, newest first, each compared with its transaction's event."""
    anchors = [stage.results[job]["receipt"]["anchor"] for job in stage.job_ids]
    roots = {anchor["tx_hash"]: anchor["root"] for anchor in anchors}
    batches = [b for b in stage.client.pages("/v1/settlements", limit=200) if b["tx_hash"] in roots]
    require(len(batches) == len(roots), f"{len(roots)} anchors, but {len(batches)} settlement batches")
    for batch in batches:
        root, gas = stage.node.anchored_root(batch["tx_hash"])
        require(
            (batch["state"], batch["root"], batch["gas_used"]) == ("final", root, gas),
            f"the settlement {batch['id']} says {batch['root']} for {batch['gas_used']} gas, "
            f"the chain {root} for {gas}",
        )
        require(roots[batch["tx_hash"]] == root, "a receipt names another root than its transaction")
    return batches


def pay_out(stage: Stage, step: Step) -> None:
    """Each provider claims on the chain what it earned, from its own address."""
    for name in PROVIDERS:
        stage.report.payouts += _claim_all(stage, name)
    for name in PROVIDERS:
        claimed = {p["tx_hash"] for p in stage.report.payouts if p["provider"] == name}
        wait_for(
            lambda name=name, claimed=claimed: _all_claimed(stage, name, claimed),  # type: ignore[misc]
            seconds=60,
            what=f"the claims of {name} are final",
            log=stage.log("chain.log"),
        )
    total = sum((Decimal(payout["amount"]) for payout in stage.report.payouts), Decimal(0)).normalize()
    step.detail = f"{len(stage.report.payouts)} claims of {total:f} AIT arrived at the providers' addresses"


def _claim_all(stage: Stage, name: str) -> list[JSON]:
    """What this provider can claim now; one payout must have become claimable."""
    due = wait_for(
        lambda: _claimable(stage, name),
        seconds=90,
        what=f"a payout of {name} is claimable",
        log=stage.log("worker.log"),
    )
    signer = Signer("demo", bytes.fromhex(stage.state.wallets[name]))
    claims = [_claim(stage, name, item, signer) for item in due]
    stage.tell(f"{name} claimed {len(claims)} payouts, the last by the transaction {claims[-1]['tx_hash']}")
    return claims


def _claim(stage: Stage, name: str, item: JSON, signer: Signer) -> JSON:
    before = stage.node.balance(signer.address)
    tx_hash = stage.node.claim(item["claim"], signer)
    gained = stage.node.balance(signer.address) - before
    require(gained == int(item["claim"]["units"]), f"{name} got {gained} units, not {item['claim']['units']}")
    return {"provider": name, "amount": item["amount"], "batch": item["batch"], "tx_hash": tx_hash}


def _claimable(stage: Stage, name: str) -> list[JSON] | None:
    items = stage.apis[name].get("/v1/payouts", limit=200)["items"]
    return [item for item in items if item["claim"]] or None


def _all_claimed(stage: Stage, name: str, transactions: set[str]) -> bool | None:
    items = stage.apis[name].get("/v1/payouts", limit=200)["items"]
    return transactions <= {item["claim_tx"] for item in items if item["state"] == "claimed"} or None


def collect_receipts(stage: Stage, step: Step) -> None:
    """Every receipt in a file in its canonical form; those of the larger jobs exactly as they were sent."""
    contents = {job: offline.canonical(stage.results[job]["receipt"]) for job in stage.tiny}
    for order in stage.orders:
        contents[order.id] = stage.client.receipt(order.id)
        receipt = stage.results[order.id]["receipt"]
        require(
            contents[order.id] == offline.canonical(receipt),
            f"the receipt of {order.id} is not sent in its canonical form",
        )
        verdict = stage.client.verify(receipt)
        require(verdict["valid"] and all(verdict["checks"].values()), f"receipt of {order.id}: {verdict}")
        _check_payment(stage.client.job(order.id), receipt)
    stage.files = offline.write_all(stage.folder / "receipts", contents)
    step.detail = f"{len(stage.files)} in {stage.folder / 'receipts'}; {len(stage.orders)} verified over HTTP"


def _check_payment(job: JSON, receipt: JSON) -> None:
    """What left the client's escrow is what the receipt says."""
    parts = {
        name: Decimal(job["payment"][name]["amount"]) for name in ("held", "released", "refunded", "fee")
    }
    require(
        parts["released"] + parts["fee"] == Decimal(receipt["total"]["amount"])
        and parts["fee"] == Decimal(receipt["fee"]["amount"])
        and parts["released"] + parts["fee"] + parts["refunded"] == parts["held"],
        f"the payment of {job['id']} is {parts}, its receipt says {receipt['total']}, fee {receipt['fee']}",
    )


def audit(stage: Stage, step: Step) -> None:
    """The ledger proven from its entries up, nothing left in escrow, and the chain holds what is owed.

    Since the platform came up again tokens have not moved: any comparison from then on counts.
    """
    moment = stage.up_at
    assert moment is not None  # the platform runs
    stage.report.ledger_audit = audit_ledger()
    reserves = wait_for(
        lambda: _reserves_since(stage, moment),
        seconds=60,
        what="the reserves are compared again",
        log=stage.log("worker.log"),
    )
    stage.report.reserves = reserves
    require(Decimal(reserves["difference"]) == 0, f"the reserves differ by {reserves['difference']} AIT")
    held = {item["asset"]: item["held"] for item in stage.client.get("/v1/accounts")["items"]}["AIT"]
    require(Decimal(held) == 0, f"{held} AIT of the client are still in escrow")
    ledger = stage.report.ledger_audit
    step.detail = (
        f"{ledger['rules']} rules over {ledger['entries']} entries hold; the ledger owes "
        f"{reserves['ledger_liabilities']} AIT, the chain holds {reserves['onchain']} "
        f"at block {reserves['block']}"
    )


def audit_ledger() -> dict[str, Any]:
    """The report of `manage.py audit_ledger`; Failed unless it found the ledger sound."""
    found = commands.ask("audit_ledger")
    require(found["ok"], f"the ledger is not sound: {found['findings']}")
    return found


def _reserves_since(stage: Stage, moment: datetime) -> JSON | None:
    response = stage.client.send("GET", "/v1/reserves", 200, 503)  # 503: never compared so far
    if response.status_code == 503:
        return None
    found: JSON = response.json()
    return found if datetime.fromisoformat(found["checked_at"]) > moment else None
