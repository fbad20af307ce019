"""Copies of files and folders with the OpenSSH of this machine, by the rules of `Reservation.upload`.

A slash at the end of the source has no meaning.
"""

from __future__ import annotations

import os
import posixpath
import subprocess
import tempfile
from pathlib import Path

from gpudev.errors import GpuDevError, InvalidRequest, cause
from gpudev.processes import start
from gpudev.remote import Host, line

_UNPACK = 'mkdir -p -- "$1" && exec tar -C "$1" -xpf - --no-same-owner'
_PACK = 'exec tar -C "$1" -cf - .'
_HARMLESS = "file changed as we read it"


def upload(host: Host, local: str | Path, remote: str) -> None:
    """See `gpudev.Reservation.upload`."""
    source = Path(os.path.abspath(local))  # noqa: PTH100  (Path would keep "..", which is not a name)
    if not source.exists():
        raise FileNotFoundError(f"{source} does not exist")
    into, target = _is_folder(remote), _below_home(remote)
    if source.is_dir():
        target = posixpath.join(target, _name(str(source))) if into else target
        failed = f"{source} could not be copied to {host.alias}:{target}"
        _pipe(["tar", "-C", str(source), "-cf", "-", "."], _in_shell(host, _UNPACK, target), failed)
        return
    failed = f"{source} could not be copied to {host.alias}:{target}"
    if into:
        _run(_in_shell(host, 'mkdir -p -- "$1"', target), failed)
    _run(_scp(host, str(source), f"{host.alias}:{target}{'/' if into else ''}"), failed)


def download(host: Host, remote: str, local: str | Path) -> None:
    """See `gpudev.Reservation.download`."""
    source, into = posixpath.normpath(_below_home(remote)), _is_folder(str(local))
    asked = _in_shell(host, 'test -d "$1"', source)
    is_folder = _run(asked, f"{host.alias}:{source} could not be copied", allowed=(0, 1)) == 0
    target = Path(local).absolute()
    if is_folder and into:
        target /= _name(source)
    failed = f"{host.alias}:{source} could not be copied to {target}"
    try:
        if is_folder or into:
            target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GpuDevError(f"{failed}: {cause(error)}", code="copy_failed") from error
    if is_folder:
        unpack = ["tar", "-C", str(target), "-xpf", "-", "--no-same-owner"]
        _pipe(_in_shell(host, _PACK, source), unpack, failed)
    else:
        _run(_scp(host, f"{host.alias}:{source}", str(target)), failed)


def _is_folder(target: str) -> bool:
    return target.endswith("/") or posixpath.basename(target) in ("", ".", "..", "~")


def _below_home(path: str) -> str:
    """Return the path for a command on the server, which starts in the home."""
    path = path.removeprefix("~/") if path.startswith("~/") else path
    if path.startswith("~") and path != "~":
        raise InvalidRequest(
            f"{path} is in the home of another user, which gpu-dev does not look up.",
            hint=f"Use the full path, or ./{path} for a file or folder with this name.",
        )
    path = "." if path in ("", "~") else path
    return f"./{path}" if path.startswith("-") else path


def _name(path: str) -> str:
    name = posixpath.basename(posixpath.normpath(path))
    if name in ("", ".", ".."):
        raise InvalidRequest(
            f"The copy of {path} needs a name.", hint="Use a target with a name, for example: copy"
        )
    return name


def _in_shell(host: Host, script: str, path: str) -> list[str]:
    return host.command("ssh", host.alias, "--", line(["sh", "-c", script, "sh", path]))


def _scp(host: Host, source: str, target: str) -> list[str]:
    return host.command("scp", "-p", "-q", "--", source, target)


def _run(argv: list[str], failed: str, allowed: tuple[int, ...] = (0,)) -> int:
    with tempfile.TemporaryFile() as said:
        process = start(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said)
        with process:
            code = process.wait()
        if code not in allowed:
            said.seek(0)
            raise GpuDevError(f"{failed}: {said.read().decode(errors='replace').strip()}", code="copy_failed")
    return code


def _pipe(source: list[str], target: list[str], failed: str) -> None:
    """Run both programs, with the output of the first as the input of the second."""
    with tempfile.TemporaryFile() as said:
        first = start(source, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said)
        assert first.stdout is not None
        try:
            second = start(target, stdin=first.stdout, stdout=subprocess.DEVNULL, stderr=said)
            first.stdout.close()  # so that the first one notices if the second one ends
            try:
                codes = (second.wait(), first.wait())
            finally:
                second.kill()
                second.wait()
        finally:
            first.kill()
            first.wait()
        said.seek(0)
        words = said.read().decode(errors="replace").strip()
    changed = codes == (0, 1) and all(one.endswith(_HARMLESS) for one in words.splitlines())
    if codes != (0, 0) and not changed:
        raise GpuDevError(f"{failed}: {words}", code="copy_failed")
