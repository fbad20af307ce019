"""The types of the gate, which answers: may this server start, and where?

The spawner asks before any process or pod exists, and the service answers. All engines use these types; on
the wire they are JSON.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from .model import Millis, NodeSlots
from .sentences import Text


class Verdict(StrEnum):
    """What the spawner must do."""

    START = "start"
    """Build exactly what ``launch`` says."""
    QUEUED = "queued"
    """Wait: form → 303 to the reservation's page, REST → 409."""
    REDIRECT = "redirect"
    """The id cannot be used (ended, never issued, another user's): form → 303 to ``location``, REST → 403."""
    CONFLICT = "conflict"
    """The options differ from the reservation's, or it is stopping: 409."""
    INVALID = "invalid"
    """The options are wrong: 400, with the message in the form."""
    FORBIDDEN = "forbidden"
    """The person may not use this hub: 403, with the reason."""
    RETRY = "retry"
    """Ask again soon: form → 303 to ``location``, REST → 429."""


class AdmitRequest(msgspec.Struct, frozen=True):
    """``POST /gate/admit``, authenticated by the hub's secret."""

    subject: str
    hub_user: str
    login: str
    server: str
    """The server's name in the Hub: a reservation id."""
    form: bool
    """Whether the Hub's own cookie-authenticated form asks (never taken from the options)."""
    options: dict[str, object] | None = None
    """Canonical options ``{gpus, nodes, hours, gpu_type, name, image}`` when the form sent some."""


class NameAsked(msgspec.Struct, frozen=True):
    """``POST /gate/name``: may the Hub have a server of this name? Asking changes nothing."""

    subject: str
    """Whose server it would be."""
    server: str


class SshMaterial(msgspec.Struct, frozen=True):
    """What sshd of one rank needs. Secret: it is only in this answer and in files with mode 0600."""

    host_key: str
    """OpenSSH private key."""
    host_certificate: str
    gang_key: str | None = None
    """Private key that the servers of one gang share."""
    gang_public: str | None = None


class Launch(msgspec.Struct, frozen=True):
    """Everything an engine needs to build the servers of one attempt."""

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
    """The servers' token for the service (agent and key look-ups), valid for this attempt."""
    service_url: str
    """Where the servers reach the service."""
    known_hosts: str
    """``@cert-authority`` line for all servers."""
    ssh: tuple[SshMaterial, ...]
    """One per rank."""
    devices: tuple[dict[str, str], ...] = ()
    """Other devices than GPUs for each rank, by resource name; only for several whole nodes."""


class Admission(msgspec.Struct, frozen=True):
    """The gate's answer."""

    verdict: Verdict
    message: str = ""
    hint: str = ""
    location: str | None = None
    """Path to send the browser to (under the Hub's base URL)."""
    launch: Launch | None = None


class Started(msgspec.Struct, frozen=True):
    """``POST /gate/started``: the engine built the servers of an attempt. Only a hint, which may be lost."""

    server: str
    attempt: int


class Failed(msgspec.Struct, frozen=True):
    """``POST /gate/failed``: what the engine built for an attempt cannot start. It may be lost."""

    server: str
    attempt: int
    reason: str
    """Shown to people."""


class StopAsked(msgspec.Struct, frozen=True):
    """``POST /gate/stop``: may the spawner stop this server?"""

    subject: str
    """Owner of the spawner. Anyone can put any server's name into an address of the Hub."""
    server: str
    user: bool
    """Whether its user asked for it."""


class StopAnswer(msgspec.Struct, frozen=True):
    """``stop`` false: leave the server alone, since the service has not ended it (the Hub's clean-up)."""

    stop: bool


class Deleted(msgspec.Struct, frozen=True):
    """``POST /gate/deleted``: a server was deleted in the Hub, which means cancel or release."""

    subject: str
    """Whose spawner it is."""
    server: str


class PickerAsked(msgspec.Struct, frozen=True):
    """``POST /gate/picker``: the spawn page of an id is about to be shown."""

    subject: str
    login: str
    """The name of the subject that is displayed."""
    server: str
    hours: float | None = None
    """The hold to look ahead for; ``None``: the default."""


class SizeNow(msgspec.Struct, frozen=True):
    """The outlook for one size."""

    gpu_type: str
    gpus: int
    nodes: int
    free_now: int
    """How many servers of this size are free, whoever asks."""
    earliest: Millis | None
    """When the subject's request would start; ``None``: it would be refused, or blocked."""
    longest_now: Millis | None
    """If it would not start at once: the longest hold with which it would; ``None``: no hold."""
    starts_now: bool
    """Whether the subject's request would start at once."""
    reason: Text
    """Why it would not start at once; else empty."""
    refused: bool
    """Whether the request would be refused, for this reason."""


class PickerAnswer(msgspec.Struct, frozen=True):
    """What the picker (the spawn page) needs to know about the queue."""

    now: Millis
    sizes: tuple[SizeNow, ...]
    location: str | None = None
    """Page to show instead, relative to the service: the id is not a new id of the subject."""
    longest: Millis | None = None
    """The longest hold that the subject may ask for."""
    limits: tuple[str, ...] = ()
    """Every limit of the subject with what is used, as texts."""
    refused: str = ""
    """Why these hours cannot be requested; then there are no sizes."""


class Entry(StrEnum):
    """Whether a person may use the hub."""

    ALLOWED = "allowed"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"
    """Not known, because GitHub does not answer: nobody new gets in, and nobody is refused."""


class LoginAsked(msgspec.Struct, frozen=True):
    """``POST /gate/login``: this GitHub account logs in."""

    github_id: int
    login: str


class LoginAnswer(msgspec.Struct, frozen=True):
    """Whether the account may log in, and as which user of the Hub."""

    verdict: Entry
    hub_user: str = ""
    """Of ``ALLOWED``; created at the first login, and then always the same."""
    message: str = ""
    hint: str = ""
    operator: bool = False


class PersonAnswer(msgspec.Struct, frozen=True):
    """``GET /gate/people/NAME``: whether a user of the Hub may still use it."""

    verdict: Entry
    github_id: int = 0
    login: str = ""
    """The present GitHub login."""
    operator: bool = False
    message: str = ""
    hint: str = ""
