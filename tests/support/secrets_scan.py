"""Looks for a hub's secrets where they must not be: logs, processes, other accounts' files, answers."""

from __future__ import annotations

import io
import json
import re
import stat
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gpudev_hub.server import processes
from stack import Stack

PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----\s+([A-Za-z0-9+/=\s]+)-----END")
SHORTEST = 16
"""Minimum bytes of a secret. Shorter values would be found by chance."""
LARGEST = 4 << 20
"""Bytes read of a file."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that only its holders may know."""

    name: str
    value: bytes


@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """A secret in a place that others can read."""

    place: str
    secret: str


def secrets_of(stack: Stack) -> list[Secret]:
    """Return all secrets in the state folder and in the configuration of the local user."""
    parts = sorted((stack.settings.state / "secrets").iterdir())
    found = [Secret(f"secrets/{path.name}", path.read_bytes().strip()) for path in parts]
    found.append(Secret("hub/cookie_secret", (stack.settings.hub / "cookie_secret").read_bytes().strip()))
    for path in files(stack.folder):
        content = read(path)
        if match := PRIVATE_KEY.search(content):
            # The first lines say only which kind of key it is.
            lines = match[1].split()
            found.append(Secret(f"key {path.name}", lines[len(lines) // 2]))
        if path.name == "spec.json":
            env = json.loads(content)["env"]
            found.append(Secret(f"token of {path.parts[-4]}", env["JUPYTERHUB_API_TOKEN"].encode()))
        elif path.name == "token" and stack.settings.servers in path.parents:
            found.append(Secret("token of an agent", content.strip()))
    if stack.config.exists() and (token := json.loads(stack.config.read_text()).get("token")):
        found.append(Secret("token of the local user", token.encode()))
    return [secret for secret in found if len(secret.value) >= SHORTEST]


def files(folder: Path) -> Iterator[Path]:
    """Yield all plain files below a folder, except users' Python environments."""
    for path in folder.iterdir():
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode) and path.name != "envs":
            yield from files(path)
        elif stat.S_ISREG(mode):
            yield path


def read(path: Path) -> bytes:
    """Return the beginning of a file; empty if the file is gone."""
    try:
        with path.open("rb") as file:
            return file.read(LARGEST)
    except OSError:
        return b""


def found_in(secrets: Iterable[Secret], places: Mapping[str, bytes]) -> list[Finding]:
    """Return which secrets are in which places."""
    return sorted(
        Finding(place, secret.name)
        for place, content in places.items()
        for secret in secrets
        if secret.value in content
    )


def logs_of(stack: Stack) -> dict[str, bytes]:
    """Return the logs of every part and every server."""
    return {
        str(path.relative_to(stack.folder)): read(path)
        for path in files(stack.settings.state)
        if path.name.endswith(".log") or ".log." in path.name
    }


def pids_of(stack: Stack) -> dict[int, str]:
    """Return the pids of all processes of the hub and of its servers, with names."""
    named = {stack.pid: "supervisor"}
    for pid in processes.descendants(stack.pid):
        named[pid] = "other"
    for part in ("proxy", "hub", "service", *(("bastion",) if stack.settings.bastion else ())):
        if (found := stack.find(part)) is not None:
            named[found] = part
    for pid, marker in stack.server_processes().items():
        named[pid] = f"server {marker}"
    return named


def processes_of(stack: Stack, what: str) -> dict[str, bytes]:
    """Return ``cmdline`` or ``environ`` of every process, by a name with the pid."""
    return {f"{name} {pid}": read(Path(f"/proc/{pid}/{what}")) for pid, name in pids_of(stack).items()}


def unpacked(wheel: bytes) -> dict[str, bytes]:
    """Return the files in a wheel, by name."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive:
        return {f"wheel: {name}": archive.read(name) for name in archive.namelist()}


def readable_by_others(stack: Stack) -> dict[str, bytes]:
    """Return the files that other accounts can open, except ``output``, which the terminal shows."""
    found = {}
    for path in files(stack.folder):
        inner = [parent for parent in path.parents if stack.folder in (parent, *parent.parents)]
        reachable = all(parent.stat().st_mode & 0o011 for parent in inner if parent != stack.folder)
        if reachable and path.lstat().st_mode & 0o044 and path != stack.folder / "output":
            found[str(path.relative_to(stack.folder))] = read(path)
    return found
