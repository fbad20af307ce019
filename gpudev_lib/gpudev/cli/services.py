"""The service of a configuration file, for the commands that ssh runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from gpudev.api import Api


def api_of(account: Path, timeout: float) -> Api | None:
    """Return the service of a configuration file, without retries; None if none is configured."""
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
