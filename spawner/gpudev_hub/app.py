"""The commands: ``gpudev-hub`` (the supervisor of one machine) and ``gpudev-hub service``."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Coroutine
from typing import Any

from . import local_service, supervisor
from .clock import ClockBehind
from .cluster_settings import ClusterSettings
from .core.ports import (
    ClusterUnavailable,
    StaleEpoch,
    StoreBehind,
    StoreEmpty,
    StoreLocked,
    StoreUnavailable,
)
from .parts import REFUSED
from .settings import Settings, SettingsError
from .web.logs import JsonFormatter

log = logging.getLogger(__name__)

USAGE = "usage: gpudev-hub [service]"


def run_service(serving: Coroutine[Any, Any, None]) -> int:
    """The service process; returns its exit code."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        asyncio.run(serving)
    except (StoreLocked, StoreUnavailable, StoreEmpty, StoreBehind, ClusterUnavailable, ClockBehind) as error:
        log.error("%s", error)
        return REFUSED
    except StaleEpoch:
        return 1
    return 0


def main() -> None:
    """Entry point of ``gpudev-hub``; where ``GPUDEV_CLUSTER`` is set, ``service`` is a cluster's."""
    arguments = sys.argv[1:]
    if arguments == ["service"]:
        try:
            if os.environ.get("GPUDEV_CLUSTER"):
                # Needs the extra `kubernetes`, which a hub on one machine does without.
                from . import cluster_service

                sys.exit(run_service(cluster_service.serve(ClusterSettings.read(os.environ))))
            sys.exit(run_service(local_service.serve(Settings.read(os.environ))))
        except SettingsError as error:
            sys.exit(f"gpudev-hub: {error}")
    if arguments:
        sys.exit(USAGE)
    sys.exit(supervisor.run(os.environ))


if __name__ == "__main__":
    main()
