"""GPU dev servers from a script, a notebook or a terminal.

>>> import gpudev
>>> with gpudev.reserve(2, hours=1) as box:  # doctest: +SKIP
...     box.run("nvidia-smi")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpudev.client import Client, availability, get, reservations, reserve
    from gpudev.errors import (
        AccessError,
        CommandTimeout,
        ConfigError,
        ExtensionRefused,
        Forbidden,
        GpuDevError,
        InvalidHours,
        InvalidImage,
        InvalidName,
        InvalidRequest,
        InvalidShape,
        NameTaken,
        NetworkError,
        NotFound,
        NotLoggedIn,
        QuotaExceeded,
        RateLimited,
        RemoteCommandFailed,
        RequestRefused,
        ReservationEnded,
        Unavailable,
        UnexpectedAnswer,
        UnknownGpuType,
        WaitTimeout,
        WrongState,
    )
    from gpudev.progress import Progress
    from gpudev.reservation import Reservation

__all__ = [
    "AccessError",
    "Client",
    "CommandTimeout",
    "ConfigError",
    "ExtensionRefused",
    "Forbidden",
    "GpuDevError",
    "InvalidHours",
    "InvalidImage",
    "InvalidName",
    "InvalidRequest",
    "InvalidShape",
    "NameTaken",
    "NetworkError",
    "NotFound",
    "NotLoggedIn",
    "Progress",
    "QuotaExceeded",
    "RateLimited",
    "RemoteCommandFailed",
    "RequestRefused",
    "Reservation",
    "ReservationEnded",
    "Unavailable",
    "UnexpectedAnswer",
    "UnknownGpuType",
    "WaitTimeout",
    "WrongState",
    "availability",
    "get",
    "reservations",
    "reserve",
]

_HOMES = {
    "Client": "client",
    "Progress": "progress",
    "Reservation": "reservation",
    "availability": "client",
    "get": "client",
    "reservations": "client",
    "reserve": "client",
}


if not TYPE_CHECKING:  # or a type checker would believe in every name

    def __getattr__(name: str) -> Any:
        """Load what is asked for when it is: the service needs only `gpudev.wire`, commands start quickly."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(importlib.import_module(f"gpudev.{_HOMES.get(name, 'errors')}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
