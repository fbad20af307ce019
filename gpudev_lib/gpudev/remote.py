"""Commands and copies over the machine's own OpenSSH."""

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

from gpudev import ssh, sshkeys, wire
from gpudev.api import Api
from gpudev.errors import CommandTimeout, Forbidden, GpuDevError, NotFound, RemoteCommandFailed, WrongState
from gpudev.processes import Command, environment
from gpudev.words import label

MARK = "GPUDEV_RUN"
"""Variable by which what a command started is known on the server; its sshd accepts it."""
ENDING = 20.0
"""Seconds that ending a command there may take."""
_ENDED = "was ended"
_UNKNOWN = "it is not known whether it still runs"
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
"""What not every login shell takes as it is between single quotes: csh and fish don't."""


@dataclass(frozen=True)
class Host:
    """A server that can be entered."""

    alias: str
    """What ``ssh`` knows it by."""
    config: Path
    """The file that says how: used directly, so that it works whatever the user's own file includes."""

    def command(self, program: str, *args: str) -> list[str]:
        """`program` (ssh, scp) with this host's settings, never asking anything."""
        return [program, "-F", str(self.config), "-o", "BatchMode=yes", *args]


def locate(api: Api, ref: str) -> tuple[str, int]:
    """The id and the node that a name stands for: ``NAME-1`` is the second node of ``NAME``.

    A reservation that is called so itself goes first. Raises `NotFound`.
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
            f"Reservation {label(record)} has no node {number}: it has {record.nodes}, counted from 0.",
            hint=f"See: gpu-dev show {label(record)}",
        )
    return record.id, int(number)


def find(api: Api, id: str, rank: int = 0) -> Host:
    """The server on node `rank` of the reservation `id`; its SSH settings are up to date afterwards.

    Raises `WrongState` where it has none that can be entered, `Forbidden` where it is another one's, and
    `GpuDevError` if the hub accepts no key of this machine.
    """
    access = api.ssh()
    config = ssh.sync(access).config
    for host in access.hosts:
        if host.id == id and host.rank == rank:
            if not _accepted(access) and not _accepted(
                api.ssh()
            ):  # a key made just now is in the second answer
                raise GpuDevError(
                    f"The hub at {api.url} accepts none of the SSH keys in {ssh.folder()}.",
                    hint="If the hub reads keys from your home, start gpu-dev with the same HOME. "
                    f"Otherwise have {sshkeys.public(sshkeys.own_key(ssh.folder()))} added at the hub.",
                    code="no_key",
                )
            return Host(host.alias, config)
    record = api.reservation(id)
    own(record)
    raise WrongState(
        f"Reservation {label(record)} has no server to connect to: it is {record.state}.",
        hint=record.reason or f"See: gpu-dev show {label(record)}",
    )


def _accepted(access: wire.SshAccess) -> bool:
    return access.identity_file is not None or sshkeys.any_accepted(ssh.folder(), access.accepted_keys)


def own(record: wire.Reservation) -> None:
    """Raise `Forbidden` for a reservation that the caller may see and not enter."""
    if not record.mine:
        raise Forbidden(f"Reservation {label(record)} is {record.owner}'s, who alone can enter it.")


def line(cmd: str | Sequence[str]) -> str:
    """Return the command line for the shell at the other end: a string as it is, a list word for word.

    The shell may be any login shell. If the words hold what shells quote differently, ``sh`` decodes them.
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
    # In a notebook `sys.stdout` is the cell, not the kernel's own output: nothing is inherited.
    targets = [io.StringIO(newline=None) if capture else stream for stream in (sys.stdout, sys.stderr)]
    command = Command(argv, input, targets)
    try:
        code = command.wait(timeout)
    except subprocess.TimeoutExpired:
        ended = _end(host, mark, command)
        raise CommandTimeout(
            f"{told!r} on {host.alias} did not end within {timeout:g} s and {ended}.",
            hint="" if ended is _ENDED else f"See what runs there: gpu-dev ssh {host.alias} -- ps x",
            stdout=_captured(targets[0]),
            stderr=_captured(targets[1]),
        ) from None
    except BaseException:
        _end(host, mark, command)
        raise
    result = CompletedProcess(cmd, code, _captured(targets[0]), _captured(targets[1]))
    if check and code != 0:
        raise RemoteCommandFailed(
            f"{told!r} on {host.alias} ended with status {code}.",
            returncode=code,
            stdout=result.stdout,
            stderr=result.stderr,
            hint="The connection failed." if code == 255 else "",
        )
    return result


def _captured(target: TextIO | None) -> str:
    return target.getvalue() if isinstance(target, io.StringIO) else ""


def _end(host: Host, mark: str, command: Command) -> str:
    """End what a command has started on the server, and say in words whether that is done.

    Without a connection to write to, most programs there would run on.
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
