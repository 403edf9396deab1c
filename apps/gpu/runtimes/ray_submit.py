"""`ray.submit`: a client's program and a Ray cluster of its own, which starts and ends with the job.

The cluster lives in the job's sandbox and holds the whole slot: no other client's work is ever on it.
Needs requirements-ray.txt; without it the kind is not advertised.
"""

import os
import shlex
import shutil
import sys
from typing import Any, Final

from apps.gpu.runtimes import commands
from apps.gpu.runtimes.contract import Context, Runtime, invalid_input, missing_packages

PACKAGE: Final = "ray"
STORE_BYTES: Final = 100 << 20  # of the cluster's shared memory
MAX_SECONDS: Final = 86_400


def run(job: Any, context: Context) -> tuple[Any, dict[str, Any]]:
    if (cpus := job.get("resources", {}).get("cpus", context.threads)) > context.threads:
        raise invalid_input(f"this cluster has {context.threads} processors")
    commands.lay_out(context.folder, {})
    try:
        shutil.unpack_archive(context.artifact(job["working_dir"]), context.folder / commands.WORK, "zip")
    except (OSError, ValueError, shutil.ReadError) as error:
        raise invalid_input(f"the working directory is not a zip file: {error}") from error
    import ray

    ray.init(
        num_cpus=cpus, object_store_memory=STORE_BYTES, include_dashboard=False, _temp_dir=str(context.folder / "r")
    )
    search = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"  # the Python that has Ray comes first
    environment = {"RAY_ADDRESS": ray.get_runtime_context().gcs_address, "PATH": search}
    argv = shlex.split(job["entrypoint"])
    out, err = commands.run(argv, context, environment=environment, seconds=MAX_SECONDS)
    (context.folder / commands.OUT / commands.LOGS).write_text(out + err)
    return {"status": "SUCCEEDED", "logs": "", "files": {}}, {"cpus": cpus}


RUNTIME: Final = Runtime(
    kind="ray.submit",
    run=run,
    available=lambda _: missing_packages(PACKAGE),
    runs_client_code=True,
    runs_commands=True,
    artifacts=lambda job: (job["working_dir"],),
    made=lambda output: (output["logs"], *output["files"].values()),
)
