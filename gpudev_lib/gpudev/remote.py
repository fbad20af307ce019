"""Commands on servers with the OpenSSH of this machine."""

from __future__ import annotations

import io
import re
import secrets
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import TextIO

from gpudev import clock, ssh, sshkeys, wire
from gpudev.api import Api
from gpudev.errors import CommandTimeout, Forbidden, GpuDevError, NotFound, RemoteCommandFailed, WrongState
from gpudev.processes import Command, environment
from gpudev.sshfiles import folder
from gpudev.words import label, no_server, standing

MARK = "GPUDEV_RUN"
"""Environment variable that marks the processes of a command on the server. Its sshd accepts it."""
ENDING = 20.0
"""Most seconds to stop a command on the server."""
_ENDED = "It was stopped"
_UNKNOWN = "It could not be stopped and may still run"
# A process has 3 s to end by itself.
_ENDER = """
mark=GPUDEV_RUN=$1
left() { grep -lsF "$mark" /proc/[0-9]*/environ; }
signal() { for file in $(left); do file=${file#/proc/}; kill -s "$1" "${file%/environ}"; done; }
gone() { tries=0; while [ "$(left)" ]; do
  tries=$((tries + 1)); [ "$tries" -le "$1" ] || return 1; sleep 0.1; done; }
signal TERM
gone 30 || { signal KILL; gone 20; }
"""
_DIFFERS = re.compile(r"[!\\\n]")
"""Characters that csh and fish do not take literally between single quotes."""


@dataclass(frozen=True)
class Host:
    """A server that you can connect to."""

    alias: str
    """Name of the server in the SSH configuration."""
    config: Path
    """The SSH configuration file, used directly so that the user's own file does not matter."""

    def command(self, program: str, *args: str) -> list[str]:
        """Return a command line of `program` (ssh, scp) with the settings of this host, without prompts."""
        return [program, "-F", str(self.config), "-o", "BatchMode=yes", *args]


def locate(api: Api, ref: str) -> tuple[str, int]:
    """Return the reservation id and the node number for a name: ``NAME-1`` is the second node of ``NAME``.

    A reservation whose own name is ``NAME-1`` takes precedence. Raises `NotFound`.
    """
    try:
        return api.reservation(ref).id, 0
    except NotFound as error:
        name, _, number = ref.rpartition("-")
        if not re.fullmatch(r"[1-9]\d{0,3}", number) or not name:
            raise
        try:
            record = api.reservation(name)
        except NotFound:
            raise error from None
    if int(number) >= record.nodes:
        raise NotFound(
            f"Reservation {label(record)} has {record.nodes} nodes, so there is no {ref}. The last node is"
            f" {label(record)}-{record.nodes - 1}."
            if record.nodes > 1
            else f"Reservation {label(record)} has only one node, so there is no {ref}.",
            hint=f"Show its nodes with: gpu-dev show {label(record)}",
        )
    return record.id, int(number)


def find(api: Api, id: str, rank: int = 0) -> Host:
    """Return the server on node `rank` of the reservation `id`, and update the SSH settings.

    Raises `WrongState` if there is no server to connect to, `Forbidden` if the reservation is owned by
    another user, and `GpuDevError` if the hub accepts no key of this machine.
    """
    access = api.ssh()
    config = ssh.sync(access).config
    for host in access.hosts:
        if host.id == id and host.rank == rank:
            sshkeys.check_made_for(access)
            if not _accepted(access) and not _accepted(api.ssh()):  # a new key is in the second answer
                raise GpuDevError(
                    f"The hub at {api.url} accepts none of the SSH keys in {folder()}.",
                    hint="If the hub reads keys from your home, start gpu-dev with the same HOME. Otherwise"
                    f" ask an operator to add {sshkeys.public(sshkeys.own_key(folder()))} to your keys.",
                    code="no_key",
                )
            return Host(host.alias, config)
    record = api.reservation(id)
    own(record)
    raise WrongState(
        f"Reservation {label(record)} has no server to connect to: {standing(record)}.",
        hint=no_server(record, clock.now()),
    )


def _accepted(access: wire.SshAccess) -> bool:
    return access.identity_file is not None or not sshkeys.paths(folder()).keys().isdisjoint(
        access.accepted_keys
    )


def own(record: wire.Reservation) -> None:
    """Raise `Forbidden` if the reservation is owned by another user, who does not share it."""
    if not (record.mine or record.shared):
        raise Forbidden(
            f"You cannot connect to reservation {label(record)}: it is owned by {record.owner}.",
            hint=f"Its owner can give you access with: gpu-dev share {label(record)} YOUR-LOGIN",
        )


def line(cmd: str | Sequence[str]) -> str:
    """Return the command line for the shell on the server: a string unchanged, a list with each item quoted.

    The shell may be any login shell. Characters that shells quote differently are decoded by ``sh``.
    """
    if isinstance(cmd, str):
        return cmd
    words = shlex.join(cmd)
    if not _DIFFERS.search(words):
        return words
    encoded = re.sub(r"['!\\\n]", lambda found: f"\\0{ord(found[0]):03o}", words)
    return f"""sh -c 'eval "$(printf %b "$1")"' sh '{encoded}'"""


def run(
    host: Host,
    cmd: str | Sequence[str],
    *,
    check: bool,
    capture: bool,
    input: str | None,
    timeout: float | None,
) -> CompletedProcess[str]:
    """See `gpudev.Reservation.run`."""
    mark = secrets.token_hex(16)
    told = cmd if isinstance(cmd, str) else shlex.join(cmd)
    argv = host.command("ssh", "-o", f"SetEnv={MARK}={mark}", host.alias, "--", line(cmd))
    # In a notebook, `sys.stdout` is the cell and not the output of the kernel, so ssh must not inherit it.
    targets = [io.StringIO(newline=None) if capture else stream for stream in (sys.stdout, sys.stderr)]
    command = Command(argv, input, targets)
    try:
        code = command.wait(timeout)
    except subprocess.TimeoutExpired:
        ended = _end(host, mark, command)
        raise CommandTimeout(
            f"{told!r} on {host.alias} did not finish within {timeout:g} s. {ended}.",
            hint="" if ended is _ENDED else f"List its processes with: gpu-dev ssh {host.alias} -- ps x",
            stdout=_captured(targets[0]),
            stderr=_captured(targets[1]),
        ) from None
    except BaseException:
        _end(host, mark, command)
        raise
    result = CompletedProcess(cmd, code, _captured(targets[0]), _captured(targets[1]))
    if check and code != 0:
        raise RemoteCommandFailed(
            f"{told!r} on {host.alias} exited with status {code}.",
            returncode=code,
            stdout=result.stdout,
            stderr=result.stderr,
            hint="The SSH connection failed." if code == 255 else "",
        )
    return result


def _captured(target: TextIO | None) -> str:
    return target.getvalue() if isinstance(target, io.StringIO) else ""


def _end(host: Host, mark: str, command: Command) -> str:
    """Stop all processes of a command on the server, and return a text that says whether that worked.

    Most programs do not stop by themselves when the connection closes.
    """
    command.kill()
    ender = line(["sh", "-c", _ENDER, "sh", mark])
    argv = host.command("ssh", "-o", "ConnectTimeout=5", host.alias, "--", ender)
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=ENDING,
            env=environment(),
        )
    except subprocess.TimeoutExpired:
        return _UNKNOWN
    return _ENDED if done.returncode == 0 else _UNKNOWN
