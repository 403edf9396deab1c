"""What every runtime declares and how a job fails.

The platform validates inputs against the schemas in its web process, so a runtime's module imports
NumPy, onnxruntime and the like only inside its functions: importing all of them costs half a second
and some 150 MB that no web worker should carry.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

UNIT: Final = "device_second"

Fault = Literal["client", "provider"]
Schema = Mapping[str, Any]


@cache
def declared() -> dict[str, dict[str, Schema]]:
    """kind -> the schemas of its `input` and `output`."""
    found: dict[str, dict[str, Schema]] = json.loads(Path(__file__).with_name("schemas.json").read_text())
    return found


class Code(StrEnum):
    """Why a job failed, as the miner reports it."""

    UNKNOWN = "runtime.unknown"
    TIMEOUT = "runtime.timeout"
    MEMORY = "runtime.memory"
    OUTPUT_TOO_LARGE = "runtime.output_too_large"
    INVALID_MODEL = "runtime.invalid_model"
    INVALID_INPUT = "runtime.invalid_input"
    CRASHED = "runtime.crashed"
    STOPPED = "miner.stopped"
    EXIT_CODE = "runtime.exit_code"
    PROCESSES = "runtime.processes"


# Time, memory and output are the client's: the limits were agreed before the lease. A crash, the
# end of the miner, and a kind that this machine does not have are the provider's until a second miner shows otherwise.
_PROVIDERS: Final = (Code.UNKNOWN, Code.CRASHED, Code.STOPPED)
FAULTS: Final[dict[Code, Fault]] = {code: "provider" if code in _PROVIDERS else "client" for code in Code}


class RuntimeFailure(Exception):
    """A job that ended without a result; `message` is for the client to read."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message

    @property
    def fault(self) -> Fault:
        return FAULTS[self.code]


def invalid_input(message: str) -> RuntimeFailure:
    return RuntimeFailure(Code.INVALID_INPUT, message)


def invalid_model(message: str) -> RuntimeFailure:
    return RuntimeFailure(Code.INVALID_MODEL, message)


@dataclass(frozen=True)
class Context:
    """What a job may use: its scratch folder, the artifacts it names, a device and CPU threads."""

    folder: Path
    artifacts: Mapping[str, Path]
    device: str = "cpu"  # or "cuda", "rocm": the kind of the slot's device
    threads: int = 1

    def artifact(self, sha256: str) -> Path:
        """File of an artifact that the input names; `runtime.invalid_input` if it was not fetched."""
        if sha256 not in self.artifacts:
            raise invalid_input(f"artifact {sha256} was not given to this job")
        return self.artifacts[sha256]


Run = Callable[[Any, Context], tuple[Any, dict[str, Any]]]


@dataclass(frozen=True)
class Runtime:
    """One job kind.

    `runs_client_code`: parses a client's model, so production wants a real sandbox around it;
    `runs_commands`: starts a client's programs, so every miner wants one that hides the host.
    `run(input, context)` returns (output, metrics) or raises `RuntimeFailure`; it trusts the input to
    match `input_schema`. `artifacts(input)` names what must be fetched first, `models(input)` what a miner must list
    to get the job, `made(output)` the artifacts in the output. `available(device)` says
    in words why this machine cannot run it on a device of that kind, or None. `preload`: what a warm
    process imports ahead. `deviation(a, b)` of two machines' outputs for one input is at most
    `tolerance`: the runtime's comparison (protocols 18); None: they need not agree.
    """

    kind: str
    run: Run
    available: Callable[[str], str | None]
    runs_client_code: bool = False
    artifacts: Callable[[Any], tuple[str, ...]] = lambda _: ()
    preload: tuple[str, ...] = ()
    deviation: Callable[[Any, Any], float] | None = None
    tolerance: float = 0
    runs_commands: bool = False
    models: Callable[[Any], tuple[str, ...]] = lambda _: ()
    made: Callable[[Any], tuple[str, ...]] = lambda _: ()
    unit: str = UNIT

    @property
    def input_schema(self) -> Schema:
        return declared()[self.kind]["input"]

    @property
    def output_schema(self) -> Schema:
        return declared()[self.kind]["output"]


def missing_packages(*modules: str) -> str | None:
    """Which of `modules` cannot be found, looked up without importing them."""
    from importlib.util import find_spec

    absent = [name for name in modules if find_spec(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else None
