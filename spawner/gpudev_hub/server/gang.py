"""Writes the files with which the ranks of a reservation connect to each other. Users configure nothing."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import secrets
import shlex
import stat
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import preflight, private

LOOPBACK = "127.0.0.1"
HOSTFILE = "hostfile"


def alias(server: str, rank: int) -> str:
    """Return the name of a rank: certificate principal, HostKeyAlias and host in the hostfile."""
    return server if rank == 0 else f"{server}-{rank}"


def environment(folder: Path, peers: Sequence[Mapping[str, Any]], env: Mapping[str, str]) -> dict[str, str]:
    """Return ``env`` with the variables for ``mpirun`` and, with several ranks, for ``ssh`` and ``rsync``."""
    result = dict(env)
    if os.getuid() == 0:
        result["OMPI_ALLOW_RUN_AS_ROOT"] = result["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    if len(peers) < 2:
        return result
    result["PATH"] = f"{folder}/bin:{env['PATH']}"
    if _one_machine(peers):
        # The ranks share a host name. Without these variables, Open MPI treats them as one node, and their
        # shared memory segments collide.
        result["OMPI_MCA_btl"] = "self,tcp"
        result["OMPI_MCA_btl_tcp_if_include"] = "lo"
        result["OMPI_MCA_oob_tcp_if_include"] = "lo"
    return result


def prepare(
    folder: Path,
    launch: Mapping[str, Any],
    rank: int,
    user: str,
    env: Mapping[str, str],
    peers: Sequence[Mapping[str, Any]],
) -> None:
    """Write key, ``ssh`` configuration, wrappers and hostfile into the server's private folder."""
    material = launch["ssh"][rank]
    public = " ".join(material["gang_public"].split()[:2])
    fingerprint = base64.b64encode(hashlib.sha256(base64.b64decode(public.split()[1])).digest()).decode()
    private.write(folder / "gang_key", private.line(material["gang_key"]))
    private.write(folder / "gang_fingerprint", f"SHA256:{fingerprint.rstrip('=')}\n")
    limit = f'from="{LOOPBACK},::1" ' if _one_machine(peers) else ""
    private.write(folder / "gang_line", f"{limit}{public}\n")
    private.write(folder / "gang_config", _client_config(folder, launch, user, peers))
    # Not in ~/.ssh: the user's other servers share the home, and there these names would be wrong.
    (folder / "bin").mkdir(mode=0o700, exist_ok=True)
    config = shlex.quote(f"{folder}/gang_config")
    for name in ("ssh", "scp", "sftp"):
        program = preflight.program(name)
        if program:
            private.write(folder / "bin" / name, f'#!/bin/sh\nexec {program} -F {config} "$@"\n', 0o700)
    hosts = [
        f"{alias(launch['id'], other)} slots={len(place['slots'])}\n"
        for other, place in enumerate(launch["allocation"])
    ]
    private.write(folder / HOSTFILE, "".join(hosts))
    if rank == 0:
        try:
            _link_hostfile(folder, Path(env["HOME"]))
        except OSError as error:
            # If the home is full, the user must still be able to connect and free space.
            sys.stderr.write(f"~/{HOSTFILE} cannot be created: {error}. Use {folder / HOSTFILE} instead.\n")


def cleanup(folder: Path, env: Mapping[str, str]) -> None:
    """Remove ``~/hostfile`` if it belongs to this server."""
    link = Path(env["HOME"]) / HOSTFILE
    # The private folder must be removed even if the home cannot be changed.
    with contextlib.suppress(OSError):
        if link.is_symlink() and link.readlink() == folder / HOSTFILE:
            link.unlink()


def _one_machine(peers: Sequence[Mapping[str, Any]]) -> bool:
    return all(peer["host"] == LOOPBACK for peer in peers)


def _names(launch: Mapping[str, Any], rank: int) -> list[str]:
    """Return all names by which ``ssh`` on one rank finds another rank."""
    names = [alias(launch["id"], rank)]
    # If a reservation has the name of a rank (rank-1), the rank takes precedence.
    if launch["name"] and not re.fullmatch(r"rank-\d+", launch["name"]):
        names.append(alias(launch["name"], rank))
    return [*names, *(f"gpu-{name}" for name in names), f"rank-{rank}"]


def _client_config(
    folder: Path, launch: Mapping[str, Any], user: str, peers: Sequence[Mapping[str, Any]]
) -> str:
    lines = []
    everybody: list[str] = []
    for rank, peer in enumerate(peers):
        names = _names(launch, rank)
        everybody += names
        lines += [
            f"Host {' '.join(names)}",
            f"  HostName {peer['host']}",
            f"  Port {peer['port']}",
            f"  HostKeyAlias {alias(launch['id'], rank)}",
        ]
    lines += [
        f"Host {' '.join(everybody)}",
        f'  User "{user}"',
        f'  IdentityFile "{folder}/gang_key"',
        "  IdentitiesOnly yes",
        f'  UserKnownHostsFile "{folder}/known_hosts"',
        "  GlobalKnownHostsFile /dev/null",
        "  StrictHostKeyChecking yes",
        "  UpdateHostKeys no",
        "  BatchMode yes",
        "  ConnectTimeout 10",
        "  LogLevel ERROR",
        # For all other hosts, the user's configuration applies.
        f"Match originalhost *,{','.join('!' + name for name in everybody)}",
        "  Include ~/.ssh/config",
        "  Include /etc/ssh/ssh_config",
    ]
    return "\n".join(lines) + "\n"


def _link_hostfile(folder: Path, home: Path) -> None:
    """Create a link, because all servers of the user share the home. The user's own file is not replaced."""
    link = home / HOSTFILE
    try:
        if not stat.S_ISLNK(link.lstat().st_mode) or link.readlink() == folder / HOSTFILE:
            return
    except FileNotFoundError:
        pass
    # Another server may do the same now, and launchers in containers all have the same pid.
    temporary = home / f".{HOSTFILE}.{secrets.token_hex(8)}"
    temporary.symlink_to(folder / HOSTFILE)
    temporary.replace(link)
