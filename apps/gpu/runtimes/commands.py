"""A client's own command: its files laid out, its streams kept, its time limited; the sandbox is around it.

It works in the folder `work`, where its input files lie, and delivers what it leaves in `$OUT`.
"""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final

from apps.gpu.runtimes.contract import Code, Context, RuntimeFailure, invalid_input

WORK, OUT, LOGS = "work", "out", ".logs"
TEXT_BYTES: Final = 64 << 10  # of each stream, in the output and in the log
MAX_FILES: Final = 100


def lay_out(folder: Path, files: Mapping[str, Path]) -> None:
    """Makes the two folders and puts each file at its place in `work`."""
    try:
        for name in (WORK, OUT):
            (folder / name).mkdir()
        for path, source in files.items():
            target = folder / WORK / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    except OSError as error:
        raise invalid_input(f"the files cannot be laid out: {error.strerror}") from error


def run(command: Sequence[str], context: Context, *, environment: Mapping[str, str], seconds: float) -> tuple[str, str]:
    """Standard output and error of a command that ended well; RuntimeFailure for any other."""
    from apps.gpu.agent.confine import adopt_orphans

    adopt_orphans()  # so that what the command leaves running stays below this process, where it is watched
    variables = os.environ | {"OUT": str(context.folder / OUT)} | dict(environment)
    return follow(command, seconds=seconds, log=2, cwd=context.folder / WORK, env=variables)


def follow(
    argv: Sequence[str], *, seconds: float, log: int, stopped: Callable[[], bool] = lambda: False, **options: Any
) -> tuple[str, str]:
    """Runs `argv` to its end; `log` gets what it prints as it comes. `Popen` takes the `options`."""
    deadline, pipe = time.monotonic() + seconds, subprocess.PIPE
    try:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, **options)
    except (OSError, ValueError) as error:
        raise invalid_input(f"the command cannot be started: {error}") from error
    streams: list[tuple[IO[bytes], bytearray]] = [(s, bytearray()) for s in (process.stdout, process.stderr) if s]
    pumps = [threading.Thread(target=_pump, args=(*stream, log), daemon=True) for stream in streams]
    for pump in pumps:
        pump.start()
    while process.poll() is None and time.monotonic() < deadline and not stopped():
        pumps[0].join(0.02)
    if process.poll() is None:
        process.kill()
        process.wait()
        raise RuntimeFailure(Code.TIMEOUT, f"the command ran longer than its {seconds:g} seconds")
    for pump in pumps:
        pump.join(1)  # what it left running may hold the stream open
    out, err = (bytes(kept).decode(errors="replace").replace("\0", "\ufffd") for _, kept in streams)
    if process.returncode != 0:
        last = (err or out).strip().rsplit("\n", 1)[-1][:500]
        raise RuntimeFailure(Code.EXIT_CODE, f"the command ended with exit code {process.returncode}: {last}")
    return out, err


def _pump(stream: IO[bytes], kept: bytearray, log: int) -> None:
    with stream:
        while block := os.read(stream.fileno(), 1 << 16):
            fresh = block[: TEXT_BYTES - len(kept)]
            kept += fresh
            os.write(log, fresh)
