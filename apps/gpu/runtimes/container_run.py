"""`container.run`: a client's own command, in the miner's sandbox or in the image that the job names.

Without an image the command finds the system of the sandbox. An image is named by its digest and run by
the miner's rootless Podman or Docker (`apps.gpu.agent.engine`); only miners that have one get such jobs.
"""

from typing import Any, Final

from apps.gpu.runtimes import commands
from apps.gpu.runtimes.contract import Code, Context, Runtime, RuntimeFailure, closed

IMAGES: Final = "oci-images"  # what a miner with an engine lists among its models
MAX_SECONDS: Final = 86_400
_WORD: Final = {"type": "string", "maxLength": 32_768, "pattern": r"^[^\x00]*$"}

INPUT: Final = closed(
    {
        "image": {"type": ["string", "null"], "maxLength": 300, "pattern": r"^[a-z0-9][\w./:-]*@sha256:[0-9a-f]{64}$"},
        "command": {"type": "array", "minItems": 1, "maxItems": 256, "items": _WORD},
        "env": {
            "type": "object",
            "maxProperties": 100,
            "propertyNames": {"pattern": r"^[A-Za-z_][A-Za-z0-9_]{0,99}$"},
            "additionalProperties": _WORD,
        },
        "files": commands.FILES,
        "timeout": {"type": "number", "exclusiveMinimum": 0, "maximum": MAX_SECONDS},
    },
    optional=["image", "env", "files", "timeout"],
)
OUTPUT: Final = closed(
    {"exit_code": {"const": 0}, "stdout": commands.STREAM, "stderr": commands.STREAM, "files": commands.FILES}
)


def run(job: Any, context: Context) -> tuple[Any, dict[str, Any]]:
    if job.get("image"):
        raise RuntimeFailure(Code.UNKNOWN, "this miner has no engine for images")
    files = {path: context.artifact(sha256) for path, sha256 in job.get("files", {}).items()}
    commands.lay_out(context.folder, files)
    seconds = job.get("timeout", MAX_SECONDS)
    out, err = commands.run(job["command"], context, environment=job.get("env", {}), seconds=seconds)
    return {"exit_code": 0, "stdout": out, "stderr": err, "files": {}}, {}


RUNTIME: Final = Runtime(
    kind="container.run",
    input_schema=INPUT,
    output_schema=OUTPUT,
    run=run,
    available=lambda _: None,
    runs_client_code=True,
    runs_commands=True,
    artifacts=lambda job: tuple(job.get("files", {}).values()),
    models=lambda job: (IMAGES,) if job.get("image") else (),
    made=lambda output: tuple(output["files"].values()),
)
