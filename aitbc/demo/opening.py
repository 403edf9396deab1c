"""Steps that set the scene: platform, parameters, people, money, miners."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Final

from django.conf import settings

from aitbc import stack
from aitbc.chain import signing
from aitbc.chain.client import Client
from aitbc.demo.client import JSON, PENDING, Api
from aitbc.demo.failure import require
from aitbc.demo.onchain import Chain
from aitbc.demo.report import Step
from aitbc.demo.stage import PROVIDERS, Stage, processors
from aitbc.stack import process

FUNDS: Final = Decimal(100)  # AIT per run
# Minutes become seconds; the values of before come back at the end.
PARAMETERS: Final = {
    "lease_seconds": 8,
    "heartbeat_seconds": 2,
    "suspect_seconds": 6,
    "dead_seconds": 12,
    "challenge_seconds": 2,
    "maturing_seconds": 1,
    "settlement_seconds": 3,
    "payout_seconds": 5,
    "payout_minimum_milli": 1,
    "address_wait_seconds": 0,
}
_SCOPES: Final = {
    "client": "jobs:read,jobs:write,money:read,money:write",
    **dict.fromkeys(PROVIDERS, "miner,money:read,money:write"),
}


def ask(*arguments: str) -> JSON:
    """The JSON object that a management command prints with --json."""
    answer: JSON = json.loads(process.manage(*arguments, "--json").stdout.splitlines()[-1])
    return answer


def start_platform(stage: Stage, step: Step) -> None:
    """Stores, migrations, contracts, web, workers: as `make up`, without its miner."""
    processors()
    os.environ["DB_ENCRYPTION_ENABLED"] = "1"  # for all that is started from here on
    if os.path.exists(str(settings.DATABASES["chain"]["NAME"])):  # of a platform that ran without
        process.manage("db_generate_key", check=False)
        process.manage("db_encrypt")
    running = stage.start_platform()
    step.detail = f"{running.url} with {', '.join(sorted(running.processes))}"


def change_parameters(stage: Stage, step: Step) -> None:
    wanted = [f"{name}={value}" for name, value in PARAMETERS.items()]
    before = ask("set_parameters", *wanted)["before"]
    stage.state.parameters = before | stage.state.parameters  # a run that was cut short had real ones
    stage.state.save()
    step.detail = f"for this run only: {', '.join(wanted)}"


def restore_parameters(stage: Stage) -> None:
    if stage.state.parameters:
        ask("set_parameters", *[f"{name}={value}" for name, value in stage.state.parameters.items()])
        stage.state.parameters = {}
        stage.state.save()


def meet_people(stage: Stage, step: Step) -> None:
    """A client and two providers with a key each; those of an earlier run when they are still valid."""
    known = _known(stage)
    if not known:
        with ThreadPoolExecutor(2) as pool:
            stage.state.people = dict(zip(_SCOPES, pool.map(_create_person, _SCOPES), strict=True))
    stage.apis = {name: Api(stage.url, person["key"]) for name, person in stage.state.people.items()}
    for name in PROVIDERS:
        wallet = stage.state.wallets.setdefault(name, signing.new_private_key().hex())
        address = signing.address_of(bytes.fromhex(wallet))
        stage.apis[name].send("PUT", "/v1/payouts/target", json={"address": address})
    stage.state.save()
    canceled = _cancel_leftovers(stage.client)
    kept = "kept from the last run" if known else "made"
    left = f"; {canceled} jobs that a run cut short had left were canceled" if canceled else ""
    step.detail = f"a client and {len(PROVIDERS)} providers, {kept}; keys in {stage.state.path}{left}"


def _cancel_leftovers(client: Api) -> int:
    """Jobs of a run that was cut short would be found by this one's miners, and hold the client's money."""
    open_jobs = [job["id"] for state in PENDING for job in client.pages("/v1/jobs", state=state)]
    for job in open_jobs:
        client.send("POST", f"/v1/jobs/{job}/cancel", 200, 409)  # 409: it ended meanwhile
    return len(open_jobs)


def _known(stage: Stage) -> bool:
    answers = [
        Api(stage.url, person["key"]).send("GET", "/v1/accounts", 200, 401).status_code
        for person in stage.state.people.values()
    ]
    scopes = {name: person.get("scopes") for name, person in stage.state.people.items()}
    return scopes == _SCOPES and set(answers) == {200}


def _create_person(name: str) -> dict[str, str]:
    """As an operator does it, by commands."""
    email, role = f"demo-{name}@aitbc.localhost", "client" if name == "client" else "miner"
    user = ask("create_user", "--email", email, "--role", role, "--if-missing")
    made = ask("create_api_key", "--user", email, "--scopes", _SCOPES[name], "--name", "demo")
    return {"email": email, "id": user["id"], "key": made["key"], "scopes": _SCOPES[name]}


def deposit(stage: Stage, step: Step) -> None:
    """AIT minted to the client's deposit address; the indexer must see it and credit it when it is final."""
    before, email = _available(stage), stage.state.people["client"]["email"]
    funded = ask("fund", "--user", email, "--amount", str(FUNDS), "--wait", "90")
    require(funded["state"] == "credited", f"the deposit is {funded['state']}", log="log/chain.log")
    gained = _available(stage) - before
    require(gained == FUNDS, f"the balance grew by {gained} AIT, not by {FUNDS}")
    addresses = {name: each["address"] for name, each in ask("deploy_contracts")["contracts"].items()}
    node = Client(stack.discover().chain_rpc_url, settings.CHAIN_ID)
    stage.node = Chain(node=node, token=addresses["AIT"], settlement=addresses["Settlement"])
    newest = stage.client.get("/v1/deposits", limit=1)["items"][0]
    mined = stage.node.receipt(newest["tx_hash"]).block_number
    require(mined == newest["block"], f"the deposit is in block {mined}, not in {newest['block']}")
    step.detail = f"{FUNDS} AIT to {newest['address']}, block {mined}; available {before + gained}"


def _available(stage: Stage) -> Decimal:
    """The client's AIT that can be spent."""
    balances = {item["asset"]: item for item in stage.client.get("/v1/accounts")["items"]}
    return Decimal(balances["AIT"]["available"])


def start_miners(stage: Stage, step: Step) -> None:
    for daemon in stage.daemons:
        daemon.start(stage.url)
    for daemon in stage.daemons:
        miner = daemon.wait_until_ready()
        device = miner["devices"][0]
        stage.tell(
            f"{daemon.name}: pid {daemon.pid}, processor {daemon.cpu} ({device['model']}), "
            f"{device['tflops']:.3f} TFLOPS proven, {', '.join(miner['kinds'])}"
        )
    step.detail = f"{len(stage.daemons)} daemons on line, hardware challenge passed"
