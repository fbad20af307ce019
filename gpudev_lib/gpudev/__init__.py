"""Reserve and use GPU dev servers from a script or a notebook.

>>> import gpudev
>>> with gpudev.reserve(2, hours=1) as box:  # doctest: +SKIP
...     box.run("nvidia-smi")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpudev.client import Client, availability, get, reservations, reserve, usage
    from gpudev.errors import (
        AccessError,
        AccessRevoked,
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
        Unavailable,
        UnexpectedAnswer,
        UnknownGpuType,
        WrongState,
    )
    from gpudev.progress import Progress
    from gpudev.reservation import Reservation, ReservationEnded, WaitTimeout

__all__ = [
    "AccessError",
    "AccessRevoked",
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
    "usage",
]

if not TYPE_CHECKING:  # otherwise a type checker would accept every name

    def __getattr__(name: str) -> Any:
        """Import a name on first use: the service needs only `gpudev.wire`, and commands start faster."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        modules = (importlib.import_module(f"gpudev.{home}") for home in ("errors", "reservation", "client"))
        value = next(getattr(module, name) for module in modules if hasattr(module, name))
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
