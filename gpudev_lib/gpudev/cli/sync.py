"""Keeping SSH's view up to date: ``gpu-dev ssh-sync``, which ssh itself runs, and after every change."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from gpudev.api import Api

PATIENCE = 2.0
"""Seconds that a connection is held up where the service does not answer; what is known then has to do."""


def main() -> int:
    """``gpu-dev ssh-sync``: silent, and never a reason not to connect."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C is told by ssh
    try:
        from gpudev import ssh

        for account in ssh.known_accounts():
            if not ssh.fresh(account):
                _sync(account)
    except Exception:  # whatever it is: what was known before has to do
        return 0
    return 0


def _sync(account: Path) -> None:
    from gpudev import config, ssh
    from gpudev.api import Api
    from gpudev.errors import GpuDevError

    try:
        in_use = account == config.path().absolute()
        settings = config.resolve() if in_use else config.settings_of(account)
        if settings is None:
            return
        api = Api(settings.url, settings.token, patience=PATIENCE if in_use else 0.0)
        ssh.sync(api.ssh(), account)
    except (GpuDevError, OSError):
        return  # what was known before has to do


def after_change(api: Api) -> None:
    """Make ``ssh gpu-NAME`` work at once for what was just made; a failure is told and does no harm."""
    from gpudev import ssh
    from gpudev.cli.output import say
    from gpudev.errors import GpuDevError

    try:
        ssh.sync(api.ssh())
    except (GpuDevError, OSError) as error:
        say(f"SSH settings are not up to date: {error}")
