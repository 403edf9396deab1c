"""Steps that set the scene: platform, parameters, people, money, miners."""

import os
import stat
from decimal import Decimal
from pathlib import Path
from typing import Final

import httpx

from aitbc import stack
from aitbc.chain import signing
from aitbc.demo import commands
from aitbc.demo.client import PENDING, Api
from aitbc.demo.failure import require, wait_for
from aitbc.demo.miners import Daemon
from aitbc.demo.onchain import Chain
from aitbc.demo.report import Step
from aitbc.demo.stage import PROVIDERS, REGION, Stage, processors
from aitbc.demo.state import Person
from aitbc.stack import platform

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
    "client": "jobs:read,jobs:write,money:read",
    **dict.fromkeys(PROVIDERS, "miner,money:read,money:write"),
}


def start_platform(stage: Stage, step: Step) -> None:
    """Stores, migrations, contracts, web, workers: as `make up`, without its miner."""
    processors()
    stage.start_platform()
    running = platform.status()
    assert running is not None  # it has just come up
    step.detail = f"{running.url} with {', '.join(sorted(running.processes))}"


def change_parameters(stage: Stage, step: Step) -> None:
    wanted = [f"{name}={value}" for name, value in PARAMETERS.items()]
    before = commands.ask("set_parameters", *wanted)["before"]
    stage.state.parameters = before | stage.state.parameters  # a run that was cut short had real ones
    stage.state.save()
    step.detail = f"for this run only: {', '.join(wanted)}"


def restore_parameters(stage: Stage) -> None:
    if stage.state.parameters:
        commands.ask("set_parameters", *[f"{n}={v}" for n, v in stage.state.parameters.items()])
        stage.state.parameters = {}
        stage.state.save()


def meet_people(stage: Stage, step: Step) -> None:
    """A client and two providers with a key each; those of an earlier run when they are still valid."""
    known = _known(stage)
    if not known:
        _create_people(stage)
    stage.apis = {name: Api(stage.url, person.key) for name, person in stage.state.people.items()}
    for name in PROVIDERS:
        wallet = stage.state.wallets.setdefault(name, signing.new_private_key().hex())
        address = signing.address_of(bytes.fromhex(wallet))
        stage.apis[name].send("PUT", "/v1/payouts/target", json={"address": address})
    stage.state.save()
    canceled = _cancel_leftovers(stage.apis["client"])
    kept = "kept from the last run" if known else "made"
    left = f"; {canceled} jobs that a run cut short had left were canceled" if canceled else ""
    step.detail = f"a client and {len(PROVIDERS)} providers, {kept}; keys in {stage.state.path}{left}"


def _cancel_leftovers(client: Api) -> int:
    """Jobs of a run that was cut short would be found by this one's miners, and hold the client's money."""
    open_jobs = [job["id"] for state in PENDING for job in client.pages("/v1/jobs", state=state, limit=200)]
    for job in open_jobs:
        client.send("POST", f"/v1/jobs/{job}/cancel", 200, 409)  # 409: it ended meanwhile
    return len(open_jobs)


def _known(stage: Stage) -> bool:
    if stage.state.people.keys() != _SCOPES.keys():
        return False
    keys = [person.key for person in stage.state.people.values()]
    headers = [{"Authorization": f"Bearer {key}"} for key in keys]
    url = f"{stage.url}/v1/accounts"
    return all(httpx.get(url, headers=h, timeout=30, trust_env=False).status_code == 200 for h in headers)


def _create_people(stage: Stage) -> None:
    """As an operator does it, by commands."""
    emails = {name: f"demo-{name}@aitbc.localhost" for name in _SCOPES}
    role = {name: "client" if name == "client" else "miner" for name in _SCOPES}
    users = commands.ask_all(
        [(("create_user", "--email", emails[n], "--role", role[n], "--if-missing"), "") for n in _SCOPES]
    )
    keys = commands.ask_all(
        [
            (("create_api_key", "--user", emails[n], "--scopes", scopes, "--name", "demo"), "")
            for n, scopes in _SCOPES.items()
        ]
    )
    stage.state.people = {
        name: Person(emails[name], user["id"], key["key"])
        for name, user, key in zip(_SCOPES, users, keys, strict=True)
    }


def deposit(stage: Stage, step: Step) -> None:
    """AIT minted to the client's deposit address; the indexer must see it and credit it when it is final."""
    before = available(stage.client)
    email = stage.state.people["client"].email
    funded, deployed = commands.ask_all(
        [
            (("fund", "--user", email, "--amount", str(FUNDS), "--wait", "90"), ""),
            (("deploy_contracts",), ""),
        ]
    )
    require(funded["state"] == "credited", f"the deposit is {funded['state']}", log=stage.log("chain.log"))
    gained = available(stage.client) - before
    require(gained == FUNDS, f"the balance grew by {gained} AIT, not by {FUNDS}")
    contracts = deployed["contracts"]
    stage.chain = Chain(
        url=stack.discover().chain_rpc_url,
        token=contracts["AIT"]["address"],
        settlement=contracts["Settlement"]["address"],
    )
    newest = stage.client.get("/v1/deposits", limit=1)["items"][0]
    mined = int(stage.node.receipt(newest["tx_hash"])["blockNumber"], 16)
    require(mined == newest["block"], f"the deposit is in block {mined}, not in {newest['block']}")
    step.detail = f"{FUNDS} AIT to {newest['address']}, block {mined}; available {available(stage.client)}"


def available(api: Api) -> Decimal:
    """The caller's AIT that can be spent."""
    balances = {item["asset"]: item for item in api.get("/v1/accounts")["items"]}
    return Decimal(balances["AIT"]["available"])


def prepare_daemons(stage: Stage) -> None:
    """Two daemons, one per provider and processor; not started yet."""
    stage.daemons = [
        Daemon(
            name=f"demo-miner-{number}",
            cpu=cpu,
            region=REGION,
            key_file=_key_file(stage.folder / f"miner-{number}.key", stage.state.people[name].key),
            state_dir=stage.folder / "miners" / str(number),
            var=stage.var,
            api=stage.apis[name],
        )
        for number, (name, cpu) in enumerate(zip(PROVIDERS, processors(), strict=True), start=1)
    ]


def _key_file(path: Path, key: str) -> Path:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, stat.S_IRUSR | stat.S_IWUSR)
    with os.fdopen(descriptor, "w") as file:
        file.write(key + "\n")
    return path


def start_miners(stage: Stage, step: Step) -> None:
    for daemon in stage.daemons:
        daemon.start(stage.url)
    miners = [daemon.wait_until_ready(120) for daemon in stage.daemons]
    for daemon, miner in zip(stage.daemons, miners, strict=True):
        device = miner["devices"][0]
        stage.tell(
            f"{daemon.name}: pid {daemon.pid}, processor {daemon.cpu} ({device['model']}), "
            f"{device['tflops']:.3f} TFLOPS proven, {', '.join(miner['kinds'])}"
        )
    step.detail = f"{len(miners)} daemons on line, hardware challenge passed"


def wait_for_miner(daemon: Daemon) -> None:
    wait_for(daemon.ready, seconds=120, what=f"{daemon.name} is back", log=str(daemon.log))
