"""The job kinds a miner can run, one module each; `contract.Runtime` says what a kind declares."""

from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from apps.gpu.runtimes import (
    audio_vad,
    bench_matmul,
    container_run,
    llm_chat,
    onnx_infer,
    ray_submit,
    text_embed,
    vision_ocr,
)
from apps.gpu.runtimes.contract import Code, Runtime, RuntimeFailure

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator

Side = Literal["input", "output"]


@cache
def runtimes() -> dict[str, Runtime]:
    """Every kind the platform knows, by name, whether or not this machine can run it."""
    modules = (audio_vad, bench_matmul, container_run, llm_chat, onnx_infer, ray_submit, text_embed, vision_ocr)
    return {module.RUNTIME.kind: module.RUNTIME for module in modules}


def find(kind: str) -> Runtime:
    """The runtime of `kind`; RuntimeFailure "runtime.unknown" if there is none."""
    if kind not in runtimes():
        raise RuntimeFailure(Code.UNKNOWN, f"this miner has no runtime for {kind!r}")
    return runtimes()[kind]


def available_kinds(device: str = "cpu") -> list[str]:
    """The kinds that this machine can run on a device of that kind; only these may be advertised."""
    return [kind for kind, runtime in runtimes().items() if runtime.available(device) is None]


def unavailable(device: str = "cpu") -> dict[str, str]:
    """Why each of the other kinds is not advertised."""
    reasons = {kind: runtime.available(device) for kind, runtime in runtimes().items()}
    return {kind: reason for kind, reason in reasons.items() if reason is not None}


def misfits(kind: str, side: Side, value: Any) -> list[dict[str, Any]]:
    """Where `value` does not fit the kind's schema of this side: `loc` and `msg` of up to 20 places."""
    return errors_of(_validator(kind, side), side, value)


def errors_of(validator: "Draft202012Validator", side: Side, value: Any) -> list[dict[str, Any]]:
    found = islice(validator.iter_errors(value), 20)
    return [{"loc": ["body", side, *map(str, error.absolute_path)], "msg": error.message[:300]} for error in found]


@cache
def _validator(kind: str, side: Side) -> "Draft202012Validator":
    from jsonschema import Draft202012Validator  # a job's process, which imports this module, checks nothing

    runtime = find(kind)
    return Draft202012Validator(runtime.input_schema if side == "input" else runtime.output_schema)
