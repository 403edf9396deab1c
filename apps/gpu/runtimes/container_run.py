"""`container.run`: a client's own command, in the miner's sandbox or in the image that the job names.

Without an image the command finds the system of the sandbox. An image is named by its digest and run by
the miner's rootless Podman or Docker (`apps.gpu.agent.engine`); only miners that have one get such jobs.
"""

from typing import Any, Final

from apps.gpu.runtimes import commands
from apps.gpu.runtimes.contract import Code, Context, Runtime, RuntimeFailure

IMAGES: Final = "oci-images"  # what a miner with an engine lists among its models
MAX_SECONDS: Final = 86_400


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
    run=run,
    available=lambda _: None,
    runs_client_code=True,
    runs_commands=True,
    artifacts=lambda job: tuple(job.get("files", {}).values()),
    models=lambda job: (IMAGES,) if job.get("image") else (),
    made=lambda output: tuple(output["files"].values()),
)
