"""The settings that decisions depend on: pools, limits for everybody, allowed times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .access_model import LimitRule
from .model import HOUR, MINUTE, SECOND, Millis


@dataclass(frozen=True, slots=True)
class Allowances:
    """Limits on one user."""

    hold_per_request: Millis = 24 * HOUR
    hold_with_extensions: Millis = 48 * HOUR
    running_gpus: int = 16
    queued_requests: int = 10
    gpu_hours: int | None = None
    """Most GPU-hours requested by the owner's live reservations together; ``None``: no limit."""
    gpu_hours_week: int | None = None
    """Most GPU-hours of hold time in one ISO week (UTC); ``None``: no limit."""
    gpu_hours_month: int | None = None
    """Most GPU-hours of hold time in one calendar month (UTC); ``None``: no limit."""


@dataclass(frozen=True, slots=True)
class PoolSettings:
    """A pool: nodes of one GPU type, its images, limits and allowances."""

    name: str
    """Also ``gpu_type`` in the API."""
    gpus_per_node: int
    images: tuple[str, ...]
    """Allowed images; the first is the default."""
    label: str = ""
    """Shown to people: ``8 simulated GPUs``."""
    simulated: bool = False
    startup: Millis = 60 * SECOND
    """How long a server may take until it is ready."""
    teardown: Millis = 30 * SECOND
    """How long a server may take to stop."""
    restart_window: Millis = 10 * MINUTE
    """How long the GPUs of a server that its user stopped are kept."""
    stop_overrun: Millis = 60 * SECOND
    """A server that still runs this long after its hard end is a logged cause."""
    max_gang: int = 2
    """Most whole nodes of one reservation."""


@dataclass(frozen=True, slots=True)
class Policy:
    """All settings that decisions depend on."""

    pools: tuple[PoolSettings, ...]
    """The first is the default pool."""
    default_hold: Millis = 4 * HOUR
    min_hold: Millis = 1 * MINUTE
    allowances: Allowances = Allowances()
    """For everybody, unless a rule says otherwise (``limits/rules.py``)."""
    personal: Mapping[str, LimitRule] = field(default_factory=dict)
    """Limits of individual people by subject, from the settings. Rules set at run time come first."""
    teams: tuple[str, ...] = ()
    """Teams (``org/slug``) that may have limits of their own."""
    warn_minutes: tuple[int, ...] = (30, 15, 5)
    """Minutes before the end at which owners are warned; JupyterLab opens a dialog at the last two."""
    start_attempts: int = 3
    restart_attempts: int = 3
    revocation_grace: Millis = 30 * MINUTE
    """How long servers run on after their owner lost access."""
    node_grace: Millis = 2 * MINUTE
    """Trouble with a node that ends within this time displaces no request."""

    def pool(self, name: str) -> PoolSettings:
        """Return the pool of that name. Raises ``KeyError``."""
        for pool in self.pools:
            if pool.name == name:
                return pool
        raise KeyError(name)
