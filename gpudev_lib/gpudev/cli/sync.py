"""Updates of the SSH settings: ``gpu-dev ssh-sync``, which ssh runs, and after each change."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gpudev.api import Api
    from gpudev.errors import GpuDevError
    from gpudev.wire import SshAccess

PATIENCE = 1.5
"""Most seconds to wait for a service before a connection. After that, ssh uses the settings as they are."""

_DESTINATION = re.compile(r"(?:ssh://)?(?:.*@)?(gpu-[a-z0-9-]+)(?::\d+)?/?", re.IGNORECASE)
_MOST_ANCESTORS = 4


def main() -> int:
    """Run ``gpu-dev ssh-sync``. An error never prevents the connection."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ssh reports Ctrl-C
    with suppress(Exception):  # the settings stay as they were
        _sync_all()
    return 0


def _sync_all() -> None:
    from gpudev import ssh
    from gpudev.errors import GpuDevError

    deadline = time.monotonic() + PATIENCE
    accounts = ssh.known_accounts()
    errors: list[GpuDevError] = []
    with ssh.asking(accounts, PATIENCE) as due:
        for account, answer in _ask(due, deadline).items():
            try:
                if isinstance(answer, GpuDevError):
                    raise answer
                ssh.sync(answer, account)
            except GpuDevError as error:
                errors.append(error)  # the settings stay as they were
    name = typed_name()
    if name is not None:
        from gpudev.cli.why import tell_of_unknown_name

        tell_of_unknown_name(name, accounts, errors)


def _ask(accounts: list[Path], deadline: float) -> dict[Path, SshAccess | GpuDevError]:
    """Ask the services of these accounts at the same time, and return their answers before `deadline`."""
    import queue
    import threading

    from gpudev import ssh
    from gpudev.errors import GpuDevError, NetworkError

    answers: queue.SimpleQueue[tuple[Path, SshAccess | GpuDevError | None]] = queue.SimpleQueue()

    def ask(account: Path) -> None:
        answer: SshAccess | GpuDevError | None = None
        try:
            api = ssh.api_of(account, deadline - time.monotonic())
            answer = None if api is None else api.ssh()
        except GpuDevError as error:
            answer = error
        except Exception:  # the user of ssh must not see a traceback
            answer = None
        finally:
            answers.put((account, answer))

    found: dict[Path, SshAccess | GpuDevError] = {}
    silent = set(accounts)
    for account in accounts:
        threading.Thread(target=ask, args=(account,), daemon=True).start()
    while silent:
        try:
            account, answer = answers.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        silent.remove(account)
        if answer is not None:
            found[account] = answer
    for account in silent:
        found[account] = NetworkError(
            f"The hub configured in {account} did not answer within {PATIENCE:g} s."
        )
    return found


def typed_name() -> str | None:
    """Return the gpu-* name in the arguments of the ``ssh`` that started this process, if it connects.

    The name is read from the process's arguments, because ssh would pass it through a shell.
    """
    for argv in _ancestors():
        if Path(argv[0]).name == "ssh":
            if "-G" in argv:
                return None
            return next((found[1] for word in argv[1:] if (found := _DESTINATION.fullmatch(word))), None)
    return None


def _ancestors() -> Iterator[list[str]]:
    """Yield the arguments of this process's ancestors, nearest first, as far as they can be read."""
    folder = Path("/proc/self")
    for _ in range(_MOST_ANCESTORS):
        try:
            parent = re.search(r"^PPid:\s*(\d+)$", (folder / "status").read_text(), re.MULTILINE)
            if parent is None or parent[1] in ("0", "1"):
                return
            folder = Path("/proc") / parent[1]
            argv = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
        except OSError:
            return
        if argv:
            yield argv


def after_change(api: Api) -> None:
    """Update the SSH settings after a change. An error is reported but does not fail the command."""
    from gpudev import ssh
    from gpudev.cli.output import say
    from gpudev.errors import GpuDevError, cause

    try:
        problem = ssh.sync(api.ssh()).problem
    except (GpuDevError, OSError) as error:
        problem = f"The SSH settings for `ssh gpu-NAME` could not be updated: {cause(error)}"
    if problem:
        say(problem)
