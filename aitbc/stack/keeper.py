"""The process beside anvil that keeps its chain: `python -m aitbc.stack.keeper PORT FOLDER LOG COMMAND...`.

anvil saves by rewriting its file in place, even when nothing changed, so that a kill at the wrong moment
leaves half a file and no chain. This process asks for the state when the chain has moved and replaces the
file atomically; it also starts anvil again when that is killed.
"""

from __future__ import annotations

import gzip
import logging
import signal
import sys
import time
from pathlib import Path

from aitbc.stack import process, rpc
from aitbc.stack.errors import StackError
from aitbc.stack.paths import write_atomically

INTERVAL = 1.0  # seconds between two looks at the chain
_REFRESH = 30.0  # also saved when no block was mined: balances may be set without one
_SHARE = 5  # saving takes at most one part in this many of the time
_SHORT_LIFE = 3.0  # a node that dies sooner has a fault that a restart does not mend
_STOP = {signal.SIGTERM, signal.SIGINT}
log = logging.getLogger(__name__)


class Keeper:
    def __init__(self, port: int, folder: str, log_file: str, *command: str) -> None:
        self.folder, self.log, self.command = Path(folder), Path(log_file), command
        self.url = f"http://127.0.0.1:{port}"
        self.state = self.folder / "state.json"
        self.pid_file = self.folder / "anvil.pid"
        self.saved_block = ""
        self.saved_at = self.started_at = time.monotonic()
        self.pause = INTERVAL

    def run(self) -> int:
        """Keep the chain until SIGTERM; 1 when the node cannot be kept alive."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
        self._start()
        while signal.sigtimedwait(_STOP, self.pause) is None:
            if process.running(self.pid_file) is None:
                if time.monotonic() - self.started_at < _SHORT_LIFE:
                    return 1
                log.warning("anvil ended; starting it again from the last saved state")
                self._start()
            self._save_if_due()
        self._save()
        process.stop(self.pid_file, with_signal=signal.SIGTERM, seconds=10, force=True)
        return 0

    def _start(self) -> None:
        saved = ["--load-state", str(self.state)] if self.state.exists() else []
        process.start(
            [*self.command, *saved], pid_file=self.pid_file, log=self.log, cwd=self.folder, death_signal=signal.SIGTERM
        )
        self.started_at = time.monotonic()

    def _save_if_due(self) -> None:
        try:
            moved = rpc.call(self.url, "eth_blockNumber") != self.saved_block
            if moved or time.monotonic() - self.saved_at > _REFRESH:
                self._save()
        except StackError as error:  # busy or dying: the next round tells which
            log.warning("state not saved: %s", error)

    def _save(self) -> None:
        began = time.monotonic()
        block = rpc.call(self.url, "eth_blockNumber")
        packed = rpc.call(self.url, "anvil_dumpState", timeout=120)
        write_atomically(self.state, gzip.decompress(bytes.fromhex(packed[2:])).decode(), mode=0o600)
        self.saved_block, self.saved_at = block, time.monotonic()
        self.pause = max(INTERVAL, _SHARE * (self.saved_at - began))


if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s keeper %(message)s", level=logging.INFO)
    sys.exit(Keeper(int(sys.argv[1]), *sys.argv[2:]).run())
