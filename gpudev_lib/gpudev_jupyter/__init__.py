"""Jupyter server extension: the time left in JupyterLab, and what to do about it.

It is active only in servers of reservations. Elsewhere, for example on a laptop with the client library next
to JupyterLab, it changes nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

FOLDER = "GPUDEV_SERVER_FOLDER"
"""Environment variable with the path of the server's private folder (``agent.json``, ``token``)."""
REPLACED = (
    # It asks "Would you like to get notified about official Jupyter news?" until the user's settings have an
    # answer; neither `LabApp.news_url` nor the page's own option keeps it from asking.
    "@jupyterlab/apputils-extension:announcements",
    # It asks "Your server is not running. Would you like to restart it?" whatever has ended the server.
    "@jupyterlab/hub-extension:connectionlost",
)
"""Plugins of JupyterLab that are turned off on servers of reservations."""


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    return [{"module": "gpudev_jupyter"}]


def _load_jupyter_server_extension(app: Any) -> None:
    folder = _folder()
    if folder is None:
        return
    # Imported only in servers of reservations.
    from .handlers import add_handlers
    from .service import Follower, Service

    # The launcher writes it before it starts JupyterLab.
    notice = folder / "notice"
    add_handlers(app.web_app, Follower(Service.of(folder), notice.read_text() if notice.exists() else ""))


async def _start_jupyter_server_extension(app: Any) -> None:
    """Set the hook of the page. At the start, because JupyterHub's extension loads last and sets its own."""
    folder = _folder()
    if folder is None:
        return
    # Kernels and terminals have the same environment as SSH sessions.
    del os.environ[FOLDER]
    from .guests import follow

    follow(app.identity_provider, folder / "cut")
    settings = app.web_app.settings
    # The host is set where users' servers are at other addresses than the service.
    base = os.environ.get("JUPYTERHUB_HOST", "") + os.environ.get("JUPYTERHUB_BASE_URL", "/")
    config = json.loads((folder / "agent.json").read_text())
    about = {"id": config["id"], "root": f"{base}services/gpudev/"}
    settings["page_config_hook"] = page_config(about, settings.get("page_config_hook"))


def _folder() -> Path | None:
    """Return the private folder of this server; ``None`` outside servers of reservations."""
    folder = Path(os.environ.get(FOLDER) or ".nowhere")
    return folder if (folder / "agent.json").is_file() else None


def page_config(
    about: dict[str, str], before: Callable[[Any, dict[str, Any]], dict[str, Any]] | None
) -> Callable[[Any, dict[str, Any]], dict[str, Any]]:
    """Return the hook that tells JupyterLab's page about the reservation; it calls ``before`` first."""

    def hook(handler: Any, config: dict[str, Any]) -> dict[str, Any]:
        config = before(handler, config) if before is not None else config
        disabled = config.get("disabledExtensions", [])
        config["disabledExtensions"] = [*disabled, *(name for name in REPLACED if name not in disabled)]
        config["gpudev"] = json.dumps(about)
        return config

    return hook
