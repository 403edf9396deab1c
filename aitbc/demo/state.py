"""What the demonstration keeps from run to run: its people, their keys, and parameters to put back."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from aitbc.stack.paths import make_folder, write_atomically


@dataclass
class State:
    """`parameters` holds the values that a run has changed and not put back yet."""

    path: Path
    people: dict[str, dict[str, str]] = field(default_factory=dict)  # email, id and API key of each
    wallets: dict[str, str] = field(default_factory=dict)  # private keys of the providers' own addresses
    parameters: dict[str, int] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> "State":
        return cls(path, **(json.loads(path.read_text()) if path.exists() else {}))

    def save(self) -> None:
        make_folder(self.path.parent, mode=0o700)
        kept = {name: value for name, value in asdict(self).items() if name != "path"}
        write_atomically(self.path, json.dumps(kept, indent=2) + "\n", mode=0o600)
