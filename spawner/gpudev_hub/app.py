"""The commands ``gpudev-hub`` (the supervisor of one machine), ``service``, ``github-check``, ``doctor``."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any

from . import local_service, supervisor
from .auth import check as github_facts
from .auth.check import Check
from .auth.github import GithubClient
from .clock import Clock, ClockBehind
from .cluster_settings import ClusterSettings
from .core.ports import ClusterUnavailable, StaleEpoch, StoreBehind, StoreEmpty, StoreLocked, StoreUnavailable
from .core.views.doctor import Finding
from .core.words import sentence
from .github_settings import GithubSettings
from .parts import REFUSED
from .server.logs import Log
from .settings import Settings, SettingsError
from .web.logs import ACCESS, JsonFormatter

log = logging.getLogger(__name__)

USAGE = "usage: gpudev-hub [service | github-check | doctor]"


class FileHandler(logging.Handler):
    """Writes to a file of limited size. On a full disk, lines are lost but the service keeps running."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._log = Log(path)

    def emit(self, record: logging.LogRecord) -> None:
        self._log.write(f"{self.format(record)}\n".encode())


def run_service(serving: Coroutine[Any, Any, None], access_log: Path | None = None) -> int:
    """Run the service process; return its exit code.

    ``access_log`` is the file for the log of requests, so that many requests do not push other lines out of
    the service's log. Without it, both logs go to stderr.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    if access_log is not None:
        accesses = FileHandler(access_log)
        accesses.setFormatter(JsonFormatter())
        ACCESS.addHandler(accesses)
        ACCESS.propagate = False
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for chatty in ("httpx", "tornado.general"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        asyncio.run(serving)
    except (StoreLocked, StoreUnavailable, StoreEmpty, StoreBehind, ClusterUnavailable, ClockBehind) as error:
        log.error("%s", error)
        return REFUSED
    except StaleEpoch:
        return 1
    return 0


async def check_github() -> int:
    """Check everything that the hub needs from GitHub; return the exit code. Raises ``SettingsError``."""
    settings = GithubSettings.read(os.environ)
    if settings is None:
        raise SettingsError("GPUDEV_GITHUB is not set: it names the JSON file with the settings of GitHub")
    client = GithubClient(settings, now=Clock().now)
    try:
        found = await github_facts.check_github(client)
    finally:
        await client.close()
    return show(found)


async def examine() -> int:
    """Check the installation on Kubernetes; return the exit code. Raises ``SettingsError``."""
    if not os.environ.get("GPUDEV_CLUSTER"):
        raise SettingsError("GPUDEV_CLUSTER is not set: gpudev-hub doctor is for hubs on Kubernetes")
    from . import cluster_service

    return show(await cluster_service.examine(ClusterSettings.read(os.environ)))


def show(found: Sequence[Check | Finding]) -> int:
    """Print the result of each check and what to do; return the exit code, 1 if a check failed."""
    for check in found:
        sys.stdout.write(f"{'ok' if check.ok else 'FAILED':6}  {check.name}: {check.found}\n")
        if check.todo:
            sys.stdout.write(f"        {check.todo}\n")
    return 0 if all(check.ok for check in found) else 1


def main() -> None:
    """Run ``gpudev-hub``. If ``GPUDEV_CLUSTER`` is set, ``service`` runs the service of a cluster."""
    arguments = sys.argv[1:]
    if not arguments:
        sys.exit(supervisor.run(os.environ))
    try:
        if arguments == ["github-check"]:
            sys.exit(asyncio.run(check_github()))
        if arguments == ["doctor"]:
            sys.exit(asyncio.run(examine()))
        if arguments != ["service"]:
            sys.exit(USAGE)
        if os.environ.get("GPUDEV_CLUSTER"):
            # This import needs the extra ``kubernetes``, which a hub on one machine does not have.
            from . import cluster_service

            sys.exit(run_service(cluster_service.serve(ClusterSettings.read(os.environ))))
        settings = Settings.read(os.environ)
        os.umask(0o077)
        settings.logs.mkdir(parents=True, exist_ok=True)
        sys.exit(run_service(local_service.serve(settings), settings.logs / "access.log"))
    except SettingsError as error:
        sys.exit(f"gpudev-hub: {sentence(str(error))}")


if __name__ == "__main__":
    main()
