"""The gate's vocabulary: may this server start, and where?

Asked by the spawner before any process or pod exists, answered by the service. Both sides, on any engine,
use these types; on the wire they are JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from .model import Millis, NodeSlots
from .sentences import Text


class Verdict(StrEnum):
    """What the spawner is to do."""

    START = "start"
    """Build exactly what ``launch`` says."""
    QUEUED = "queued"
    """Wait outside: form → 303 to the reservation's page, REST → 409."""
    REDIRECT = "redirect"
    """The id can't be used (ended, never minted, somebody else's): form → 303 to ``location``, REST → 403."""
    CONFLICT = "conflict"
    """Options differ from the reservation's, or it is stopping: 409."""
    INVALID = "invalid"
    """The options are wrong: 400, with the message in the form."""
    FORBIDDEN = "forbidden"
    """The person may not use this hub: 403, with why."""
    RETRY = "retry"
    """Ask again soon: form → 303 to ``location``, REST → 429."""


@dataclass(frozen=True, slots=True)
class AdmitRequest:
    """``POST /gate/admit``, authenticated by the hub's secret."""

    subject: str
    hub_user: str
    login: str
    server: str
    """The server's name in the Hub: a reservation id."""
    form: bool
    """The Hub's own cookie-authenticated form asks (never taken from the options)."""
    options: dict[str, object] | None = None
    """Canonical options ``{gpus, nodes, hours, gpu_type, name, image}`` when the form sent some."""


@dataclass(frozen=True, slots=True)
class NameAsked:
    """``POST /gate/name``: may the Hub keep a server of this name? Asking changes nothing."""

    subject: str
    """Whose server it would be."""
    server: str


@dataclass(frozen=True, slots=True)
class SshMaterial:
    """What sshd of one rank needs. Private: lives in 0600 files and in this answer only."""

    host_key: str
    """OpenSSH private key."""
    host_certificate: str
    gang_key: str | None = None
    """Private key that the servers of one gang share."""
    gang_public: str | None = None


@dataclass(frozen=True, slots=True)
class Launch:
    """One attempt, complete: everything an engine needs to build the servers."""

    id: str
    attempt: int
    name: str | None
    subject: str
    hub_user: str
    gpu_type: str
    gpus: int
    allocation: tuple[NodeSlots, ...]
    """Rank ``i`` runs on ``allocation[i].node``; rank 0 has Jupyter."""
    simulated: bool
    image: str
    ends_at: Millis
    token: str
    """The servers' own token for the service (agent and key look-ups); valid for this attempt."""
    service_url: str
    """Where the servers reach the service."""
    known_hosts: str
    """``@cert-authority`` line for all servers."""
    ssh: tuple[SshMaterial, ...]
    """One per rank."""
    devices: tuple[dict[str, str], ...] = ()
    """What each rank gets of its node besides GPUs, by resource name; of several whole nodes only."""


@dataclass(frozen=True, slots=True)
class Admission:
    """The gate's answer."""

    verdict: Verdict
    message: str = ""
    hint: str = ""
    location: str | None = None
    """Path to send the browser to (under the Hub's base URL)."""
    launch: Launch | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """``POST /gate/started``: the engine built the servers of an attempt; a hint to look, safe to lose."""

    server: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Failed:
    """``POST /gate/failed``: what the engine built for an attempt can't start; safe to lose."""

    server: str
    attempt: int
    reason: str
    """For people."""


@dataclass(frozen=True, slots=True)
class StopAsked:
    """``POST /gate/stop``: may the spawner really stop this server?"""

    subject: str
    """Whose spawner it is: a name in the Hub's address is anybody's to choose."""
    server: str
    user: bool
    """Its user asked for it."""


@dataclass(frozen=True, slots=True)
class StopAnswer:
    """``stop`` false: leave the server alone, the service has not ended it (the Hub's own clean-up)."""

    stop: bool


@dataclass(frozen=True, slots=True)
class Deleted:
    """``POST /gate/deleted``: a server was deleted in the Hub, which means cancel or release."""

    subject: str
    """Whose spawner it is."""
    server: str


@dataclass(frozen=True, slots=True)
class PickerAsked:
    """``POST /gate/picker``: the spawn page of an id is about to be shown."""

    subject: str
    login: str
    """What is displayed of the subject."""
    server: str
    hours: float | None = None
    """The hold to look ahead for; ``None``: the default."""


@dataclass(frozen=True, slots=True)
class SizeNow:
    """What there is of one size."""

    gpu_type: str
    gpus: int
    nodes: int
    free_now: int
    """How many of this size are free, whoever asks."""
    earliest: Millis | None
    """When the subject's request would start; ``None``: it would be refused, or blocked."""
    longest_now: Millis | None
    """Where it would not start at once: the longest hold with which it would; ``None``: with no hold."""
    starts_now: bool
    """Whether the subject's request would start at once."""
    reason: Text
    """Why it would not; else empty."""
    refused: bool
    """Whether the request would be refused, for this reason."""


@dataclass(frozen=True, slots=True)
class PickerAnswer:
    """What the picker needs to know of the queue."""

    now: Millis
    sizes: tuple[SizeNow, ...]
    location: str | None = None
    """Path below the service's own to show instead: the id is not a new one of the subject's."""
    longest: Millis | None = None
    """The longest hold that the subject may ask for."""
    limits: tuple[str, ...] = ()
    """Every limit of the subject, with what is used, in words."""
    refused: str = ""
    """Why the hours can't be asked for; then there are no sizes."""


class Entry(StrEnum):
    """Whether a person may use the hub."""

    ALLOWED = "allowed"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"
    """Not known, because GitHub gives no answer now: nobody new gets in, and nobody is refused."""


@dataclass(frozen=True, slots=True)
class LoginAsked:
    """``POST /gate/login``: GitHub says that this account logs in now."""

    github_id: int
    login: str


@dataclass(frozen=True, slots=True)
class LoginAnswer:
    """Whether the account may log in, and as which user of the Hub."""

    verdict: Entry
    hub_user: str = ""
    """Of ``ALLOWED``; minted at the first login, and then the same for ever."""
    message: str = ""
    hint: str = ""
    operator: bool = False


@dataclass(frozen=True, slots=True)
class PersonAnswer:
    """``GET /gate/people/NAME``: whether a user of the Hub may go on to use it."""

    verdict: Entry
    github_id: int = 0
    login: str = ""
    """The present one."""
    operator: bool = False
    message: str = ""
    hint: str = ""
