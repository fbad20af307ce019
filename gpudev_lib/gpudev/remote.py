"""Commands and copies over the machine's own OpenSSH."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import IO, TextIO

from gpudev import ssh, wire
from gpudev.api import Api
from gpudev.errors import Forbidden, GpuDevError, NotFound, RemoteCommandFailed, WrongState
from gpudev.words import label


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

    Raises `WrongState` where it has none that can be entered, `Forbidden` where it is another one's.
    """
    access = api.ssh()
    config = ssh.sync(access).config
    for host in access.hosts:
        if host.id == id and host.rank == rank:
            return Host(host.alias, config)
    record = api.reservation(id)
    own(record)
    raise WrongState(
        f"Reservation {label(record)} has no server to connect to: it is {record.state}.",
        hint=record.reason or f"See: gpu-dev show {label(record)}",
    )


def own(record: wire.Reservation) -> None:
    """Raise `Forbidden` for a reservation that the caller may see and not enter."""
    if not record.mine:
        raise Forbidden(f"Reservation {label(record)} is {record.owner}'s, who alone can enter it.")


def line(cmd: str | Sequence[str]) -> str:
    """The command line for the shell at the other end: a string as it is, a list word for word."""
    return cmd if isinstance(cmd, str) else shlex.join(cmd)


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
    argv = host.command("ssh", host.alias, "--", line(cmd))
    if capture:
        done = subprocess.run(
            argv,
            input=input,
            stdin=subprocess.DEVNULL if input is None else None,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    else:
        done = CompletedProcess(argv, _stream(argv, input, timeout), "", "")
    result = CompletedProcess(cmd, done.returncode, done.stdout, done.stderr)
    if check and result.returncode != 0:
        raise RemoteCommandFailed(
            f"{line(cmd)!r} on {host.alias} ended with status {result.returncode}.",
            returncode=result.returncode,
            stdout=result.stdout,
            stderr=result.stderr,
            hint="The connection failed." if result.returncode == 255 else "",
        )
    return result


def upload(host: Host, local: Path, remote: str) -> None:
    """See `gpudev.Reservation.upload`."""
    if not local.exists():
        raise FileNotFoundError(f"{local} does not exist")
    _copy(host, str(local.absolute()), f"{host.alias}:{remote}")


def download(host: Host, remote: str, local: Path) -> None:
    """See `gpudev.Reservation.download`."""
    _copy(host, f"{host.alias}:{remote}", str(local.absolute()))


def _copy(host: Host, source: str, target: str) -> None:
    argv = host.command("scp", "-r", "-p", "-q", "--", source, target)
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise GpuDevError(f"{source} was not copied to {target}: {done.stderr.strip()}", code="copy_failed")


def _stream(argv: list[str], input: str | None, timeout: float | None) -> int:
    """Run `argv`, passing on what it writes as it comes; the exit status.

    Through pipes, not by inheriting: in a notebook `sys.stdout` is the cell, not the kernel's own output.
    """
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        pumps = [
            threading.Thread(target=_pump, args=pair, daemon=True)
            for pair in ((process.stdout, sys.stdout), (process.stderr, sys.stderr))
        ]
        for pump in pumps:
            pump.start()
        try:
            if input is not None and process.stdin is not None:
                try:
                    process.stdin.write(input.encode())
                    process.stdin.close()
                except BrokenPipeError:
                    pass  # it ended without reading: its status says why
            code = process.wait(timeout)
        except BaseException:
            process.kill()
            raise
        finally:
            for pump in pumps:
                pump.join()
    return code


def _pump(source: IO[bytes], target: TextIO) -> None:
    while chunk := source.read1(65536):  # type: ignore[attr-defined]
        target.write(chunk.decode(errors="replace"))
        target.flush()
