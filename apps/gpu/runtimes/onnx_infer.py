"""`onnx.infer`: run a client's own ONNX model on the client's tensors.

Their numbers are checked by NumPy in the sandbox: a step of JSON Schema for each would cost the web process
seconds for an input of 1 MiB.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from apps.gpu.runtimes import deviation, onnx_model
from apps.gpu.runtimes.contract import Context, Runtime, invalid_input, invalid_model, missing_packages

if TYPE_CHECKING:
    import numpy as np
    import onnxruntime

MAX_ELEMENTS: Final = 1 << 24
MAX_SAFE_INTEGER: Final = 2**53 - 1
PROVIDERS: Final = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "rocm": "ROCMExecutionProvider"}
DTYPES: Final = (
    "float32", "float64", "float16", "int8", "int16", "int32", "int64",
    "uint8", "uint16", "uint32", "uint64", "bool",
)  # fmt: skip


def artifacts(job: Any) -> tuple[str, ...]:
    tensors = [tensor["data"] for tensor in job["inputs"].values() if isinstance(tensor["data"], str)]
    return (job["model"], *tensors)


def _tensor(name: str, given: Any, context: Context) -> "np.ndarray":
    import numpy as np

    dtype, shape, data = np.dtype(given["dtype"]).newbyteorder("<"), given["shape"], given["data"]
    count = math.prod(shape)
    if count > MAX_ELEMENTS:
        raise invalid_input(f"input {name!r} has more than {MAX_ELEMENTS} elements")
    try:
        if isinstance(data, str):
            values = np.frombuffer(context.artifact(data).read_bytes(), dtype)
        else:
            values = _from_json(data, dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise invalid_input(f"input {name!r} is not a list of {dtype.name}: {error}") from error
    if values.size != count:
        raise invalid_input(f"input {name!r} has {values.size} values, its shape {shape} asks for {count}")
    return values.reshape(shape)


def _from_json(data: list[Any], dtype: "np.dtype") -> "np.ndarray":
    """JSON numbers as `dtype` without changing a value: no fraction cut off, no wrap-around, no text."""
    import numpy as np

    allowed = {bool} if dtype.kind == "b" else {int} if dtype.kind in "iu" else {int, float}
    if any(type(item) not in allowed for item in data):
        raise TypeError("an item is of another type")
    return np.array(data, dtype)  # raises OverflowError for an integer out of range


def _session(path: Path, context: Context) -> "onnxruntime.InferenceSession":
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = context.threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(path, options, providers=[PROVIDERS[context.device]])
    except Exception as error:  # onnxruntime's error classes share no base but Exception
        raise invalid_model(f"onnxruntime does not load the model: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def _output(name: str, value: Any) -> dict[str, Any]:
    """One output as JSON; NaN, infinities and integers that JSON cannot carry exactly are refused."""
    import numpy as np

    if not isinstance(value, np.ndarray) or value.dtype.name not in DTYPES:
        raise invalid_model(f"output {name!r} is not a tensor of numbers")
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise invalid_model(f"output {name!r} holds NaN or infinity, which JSON cannot carry")
    whole = value.size and value.dtype.kind in "iu"
    if whole and max(int(value.max()), -int(value.min())) > MAX_SAFE_INTEGER:
        raise invalid_model(f"output {name!r} holds integers beyond 2**53 - 1")
    return {"dtype": value.dtype.name, "shape": list(value.shape), "data": value.ravel().tolist()}


def run(job: Any, context: Context) -> tuple[Any, dict[str, Any]]:
    model = context.artifact(job["model"])
    structure = onnx_model.inspect(model)
    tensors = {name: _tensor(name, given, context) for name, given in job["inputs"].items()}
    session = _session(model, context)
    expected = {item.name for item in session.get_inputs()}
    if expected != tensors.keys():
        raise invalid_input(f"the model takes the inputs {sorted(expected)}, not {sorted(tensors)}")
    names = [item.name for item in session.get_outputs()]
    try:
        values = session.run(names, tensors)
    except Exception as error:  # as above; wrong shapes and types are told apart by the error's text only
        raise invalid_input(f"the model does not run on these inputs: {_first_line(error)}") from error
    outputs = {name: _output(name, value) for name, value in zip(names, values, strict=True)}
    return {"outputs": outputs}, {"provider": session.get_providers()[0], "nodes": structure.nodes}


def available(device: str) -> str | None:
    if missing := missing_packages("numpy", "onnxruntime"):
        return missing
    if device == "cpu":
        return None
    import onnxruntime

    provider = PROVIDERS.get(device, device)
    if provider in onnxruntime.get_available_providers():
        return None
    return f"this onnxruntime has no {provider}"


RUNTIME: Final = Runtime(
    kind="onnx.infer",
    run=run,
    available=available,
    runs_client_code=True,
    artifacts=artifacts,
    preload=("numpy", "onnxruntime"),
    deviation=deviation.numeric,
    tolerance=1e-3,
)
