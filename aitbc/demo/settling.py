"""Steps in which value settles: receipts anchored, payouts claimed, ledger and reserves proven."""

from datetime import datetime
from decimal import Decimal

import rfc8785

from aitbc.chain.keystore import Signer
from aitbc.demo import offline
from aitbc.demo.client import JSON
from aitbc.demo.failure import require, wait_for
from aitbc.demo.opening import ask
from aitbc.demo.report import Step
from aitbc.demo.stage import PROVIDERS, Stage


def settle(stage: Stage, step: Step) -> None:
    """Every receipt must be in a batch whose root a final transaction holds; the chain is asked itself."""
    stage.collect(stage.job_ids, "receipts anchored", log="log/chain.log", ready=lambda item: item["receipt"]["anchor"])
    stage.report.jobs = len(stage.job_ids)
    batches = _check_batches(stage)
    newest = batches[0]
    stage.report.settlement = {name: newest[name] for name in ("id", "tx_hash", "root", "gas_used", "block")}
    step.detail = (
        f"{len(stage.job_ids)} receipts in {len(batches)} batches, all roots found on the chain; "
        f"the last in block {newest['block']} for {newest['gas_used']} gas"
    )


def _check_batches(stage: Stage) -> list[JSON]:
    """The settlement batches of our receipts, newest first, each compared with its transaction's event."""
    anchors = [stage.results[job]["receipt"]["anchor"] for job in stage.job_ids]
    roots = {(anchor["tx_hash"], anchor["root"]) for anchor in anchors}
    hashes = {tx_hash for tx_hash, _ in roots}
    batches = [batch for batch in stage.client.pages("/v1/settlements") if batch["tx_hash"] in hashes]
    require(
        {(batch["tx_hash"], batch["root"]) for batch in batches} == roots,
        f"the receipts name the anchors {roots}, the settlement batches are {batches}",
    )
    for batch in batches:
        root, gas = stage.node.anchored_root(batch["tx_hash"])
        require(
            (batch["state"], batch["root"], batch["gas_used"]) == ("final", root, gas),
            f"the settlement {batch} does not fit the chain's root {root} for {gas} gas",
        )
    return batches


def pay_out(stage: Stage, step: Step) -> None:
    """Each provider claims on the chain what it earned, from its own address."""
    claims = [claim for name in PROVIDERS for claim in _claim_all(stage, name)]
    stage.report.payouts = claims
    wait_for(
        lambda: all(_all_claimed(stage, name) for name in PROVIDERS) or None,
        seconds=60,
        what="the claims are final",
        log="log/chain.log",
    )
    total = sum((Decimal(claim["amount"]) for claim in claims), Decimal(0)).normalize()
    step.detail = f"{len(claims)} claims of {total:f} AIT arrived at the providers' addresses"


def _claim_all(stage: Stage, name: str) -> list[JSON]:
    """What this provider can claim now; one payout must have become claimable."""
    due = wait_for(
        lambda: [payout for payout in _payouts(stage, name) if payout["claim"]] or None,
        seconds=90,
        what=f"a payout of {name} is claimable",
        log="log/worker.log",
    )
    signer = Signer("demo", bytes.fromhex(stage.state.wallets[name]))
    claims = [_claim(stage, name, payout, signer) for payout in due]
    stage.tell(f"{name} claimed {len(claims)} payouts, the last by the transaction {claims[-1]['tx_hash']}")
    return claims


def _claim(stage: Stage, name: str, payout: JSON, signer: Signer) -> JSON:
    before, units = stage.node.balance(signer.address), int(payout["claim"]["units"])
    tx_hash = stage.node.claim(payout["claim"], signer)
    gained = stage.node.balance(signer.address) - before
    require(gained == units, f"{name} got {gained} units, not {units}")
    return {"provider": name, "amount": payout["amount"], "batch": payout["batch"], "tx_hash": tx_hash}


def _payouts(stage: Stage, name: str) -> list[JSON]:
    items: list[JSON] = stage.apis[name].get("/v1/payouts", limit=200)["items"]
    return items


def _all_claimed(stage: Stage, name: str) -> bool:
    ours = {claim["tx_hash"] for claim in stage.report.payouts if claim["provider"] == name}
    return ours <= {payout["claim_tx"] for payout in _payouts(stage, name) if payout["state"] == "claimed"}


def collect_receipts(stage: Stage, step: Step) -> None:
    """Every receipt in a file, in its canonical form (RFC 8785); those of the larger jobs are sent in it."""
    contents = {job: rfc8785.dumps(stage.results[job]["receipt"]) for job in stage.job_ids}
    for order in stage.orders:
        receipt, sent = stage.results[order.id]["receipt"], stage.client.receipt(order.id)
        require(contents[order.id] == sent, f"the receipt of {order.id} is not sent in its canonical form")
        checks = stage.client.verify(receipt)
        require(all(checks.values()), f"receipt of {order.id}: {checks}")
        _check_payment(stage.client.job(order.id), receipt)
    stage.files = offline.write_all(stage.folder / "receipts", contents)
    step.detail = f"{len(stage.files)} in {stage.folder / 'receipts'}; {len(stage.orders)} verified over HTTP"


def _check_payment(job: JSON, receipt: JSON) -> None:
    """What left the client's escrow is what the receipt says."""
    held, released, refunded, fee = (
        Decimal(job["payment"][name]["amount"]) for name in ("held", "released", "refunded", "fee")
    )
    require(
        released + fee == Decimal(receipt["total"]["amount"])
        and fee == Decimal(receipt["fee"]["amount"])
        and released + fee + refunded == held,
        f"the payment of {job['id']} is {job['payment']}, its receipt says {receipt['total']}, fee {receipt['fee']}",
    )


def audit(stage: Stage, step: Step) -> None:
    """The ledger proven from its entries up, nothing left in escrow, and the chain holds what is owed.

    Since the platform came up again tokens have not moved: any comparison from then on counts.
    """
    ledger = stage.report.ledger_audit = ask("audit_ledger")
    require(ledger["ok"], f"the ledger is not sound: {ledger['findings']}")
    reserves = stage.report.reserves = wait_for(
        lambda: _reserves_since(stage), seconds=60, what="the reserves are compared again", log="log/worker.log"
    )
    require(Decimal(reserves["difference"]) == 0, f"the reserves differ by {reserves['difference']} AIT")
    held = {item["asset"]: item["held"] for item in stage.client.get("/v1/accounts")["items"]}["AIT"]
    require(Decimal(held) == 0, f"{held} AIT of the client are still in escrow")
    step.detail = (
        f"{ledger['rules']} rules over {ledger['entries']} entries hold; the ledger owes "
        f"{reserves['ledger_liabilities']} AIT, the chain holds {reserves['onchain']} "
        f"at block {reserves['block']}"
    )


def check_database(stage: Stage, step: Step) -> None:
    """The file that the platform is using: not SQLite's to read, and sound."""
    found = stage.report.chain_database = ask("db_check")
    require(found["encrypted"] and found["ok"], f"the chain database: {found}")
    rows = sum(table["rows"] for table in found["tables"].values())
    step.detail = f"begins with {found['header']}, not as SQLite does; {rows} rows, all pages sound"


def _reserves_since(stage: Stage) -> JSON | None:
    response = stage.client.send("GET", "/v1/reserves", 200, 503)  # 503: never compared so far
    found: JSON = response.json()
    fresh = response.is_success and datetime.fromisoformat(found["checked_at"]) > stage.up_at
    return found if fresh else None
