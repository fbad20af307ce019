"""Keeping SSH's view up to date: ``gpu-dev ssh-sync``, which ssh itself runs, and after every change."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from gpudev.api import Api
    from gpudev.errors import GpuDevError
    from gpudev.wire import SshAccess

PATIENCE = 1.5
"""Seconds that a connection is held up where a service does not answer; what is known then has to do."""


def main() -> int:
    """``gpu-dev ssh-sync``: never a reason not to connect."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C is told by ssh
    try:
        _sync_all()
    except Exception:  # whatever it is: what was known before has to do
        return 0
    return 0


def _sync_all() -> None:
    from gpudev import ssh
    from gpudev.cli.typed import typed_name
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
                errors.append(error)  # what was known before has to do
    name = typed_name()
    if name is not None:
        from gpudev.cli.why import tell_of_unknown_name

        tell_of_unknown_name(name, accounts, errors)


def _ask(accounts: list[Path], deadline: float) -> dict[Path, SshAccess | GpuDevError]:
    """What the services of these accounts answer; all are asked at once, and have time until `deadline`."""
    import queue
    import threading

    from gpudev.errors import GpuDevError, NetworkError

    answers: queue.SimpleQueue[tuple[Path, SshAccess | GpuDevError | None]] = queue.SimpleQueue()

    def ask(account: Path) -> None:
        answer: SshAccess | GpuDevError | None = None
        try:
            api = api_of(account, deadline - time.monotonic())
            answer = None if api is None else api.ssh()
        except GpuDevError as error:
            answer = error
        except Exception:  # whatever it is: ssh's user gets no traceback
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
        found[account] = NetworkError(f"The service of {account} did not answer in {PATIENCE:g} s.")
    return found


def api_of(account: Path, timeout: float) -> Api | None:
    """The service of a configuration file, asked once; None where nothing is configured."""
    from gpudev import config
    from gpudev.api import Api
    from gpudev.errors import NotLoggedIn
    from gpudev.sshfiles import account_path

    try:
        in_use = account == account_path(None)
        settings = config.resolve() if in_use else config.settings_of(account)
    except NotLoggedIn:
        if account.exists():
            raise
        settings = None
    if settings is None:
        return None
    return Api(settings.url, settings.token, patience=0.0, timeout=max(timeout, 0.05))


def after_change(api: Api) -> None:
    """Make ``ssh gpu-NAME`` work at once for what was just made; a failure is told and does no harm."""
    from gpudev import ssh
    from gpudev.cli.output import say
    from gpudev.errors import GpuDevError

    try:
        problem = ssh.sync(api.ssh()).problem
    except (GpuDevError, OSError) as error:
        problem = f"SSH settings are not up to date: {error}"
    if problem:
        say(problem)
