"""What a provider sets: flags of `run_miner`, and the same names in a TOML file. A flag wins over the file."""

import re
import socket
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from apps.gpu.agent.detect import parse_cpus


def words(text: str) -> tuple[str, ...]:
    return tuple(word for word in (part.strip() for part in text.split(",")) if word)


@dataclass(frozen=True)
class Setting:
    read: Callable[[str], Any]
    default: Any
    help: str
    choices: tuple[str, ...] | None = None


SETTINGS: Final = {
    "key_file": Setting(Path, None, "file with the API key (scope miner)"),
    "url": Setting(str, None, "the platform; default: the one running here"),
    "name": Setting(str, socket.gethostname(), "of this miner; default: the host's"),
    "region": Setting(str, "local", "where it stands"),
    "price": Setting(str, "0.001", "AIT per device second"),
    "kinds": Setting(words, None, "offer only these job kinds: a,b"),
    "models": Setting(words, (), "names of models kept here: a,b"),
    "llm_url": Setting(str, None, "OpenAI-compatible server for llm.chat: http://127.0.0.1:8080/v1"),
    "cpus": Setting(parse_cpus, (), "offer these processors: 0 or 0-3,6"),
    "devices": Setting(words, (), "offer only these accelerators, by uuid"),
    "slots": Setting(int, 1, "jobs at a time"),
    "memory_mb": Setting(int, 2048, "resident memory of one job"),
    "sandbox": Setting(str, None, "default: the strongest here", ("process", "bubblewrap")),
    "state_dir": Setting(Path, None, "signing key, undelivered results; default var/miners/<prefix>"),
    "drain_seconds": Setting(int, 300, "after SIGTERM jobs may go on so long; then they are handed back"),
}


def read_config(path: Path) -> dict[str, Any]:
    """The settings that a file gives; ValueError names its line and key."""
    text = path.read_text()
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(f"{path}: {error}") from error
    return {key: _read(path, text, key, value) for key, value in document.items()}


def _read(path: Path, text: str, key: str, value: Any) -> Any:
    try:
        if key not in SETTINGS:
            raise ValueError(f"no such setting; there are {', '.join(SETTINGS)}")
        if isinstance(value, bool | dict):
            raise ValueError("give a text, a number or a list")
        read = SETTINGS[key].read(",".join(map(str, value)) if isinstance(value, list) else str(value))
        if (choices := SETTINGS[key].choices) and read not in choices:
            raise ValueError(f"one of {', '.join(choices)}")
        return read
    except ValueError as error:
        begins = re.compile(rf"\s*\[*\s*[\"']?{re.escape(key)}\b")
        line = next(number for number, content in enumerate(text.splitlines(), 1) if begins.match(content))
        raise ValueError(f"{path}, line {line}, {key}: {error}") from error
