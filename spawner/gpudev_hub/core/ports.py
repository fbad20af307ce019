"""What the service needs from outside: a store, a cluster, the Hub, GitHub. Adapters implement these."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from .commit import Commit, HistoryEntry, Snapshot
from .gate import Launch
from .model import Claim, Millis, Node, Presence, Reservation
from .usage import SavedUsage, UsageDay, UsageHead

_T = TypeVar("_T")
Page = tuple[list[_T], int | None]
"""Some of many, and the cursor of the next page; ``None``: there is no more."""


class StoreUnavailable(Exception):
    """The store did not answer, and probably nothing has changed. Try again."""


class OutcomeUnknown(StoreUnavailable):
    """The store may or may not have made the commit; ``reload`` to find out (``Snapshot.n``)."""


class StaleEpoch(Exception):
    """Another service has taken over the store with a later epoch: this one must stop."""


class SlotTaken(Exception):
    """A slot to take has an owner, or a slot to free has another owner: the state in memory is wrong."""


class CommitTooLarge(Exception):
    """The commit is larger than the store takes at once; nothing was changed."""


class StoreLocked(Exception):
    """Another process has this store open."""


class StoreEmpty(Exception):
    """Servers run, but the store never had a commit: it belongs to another hub, or was emptied."""


class StoreBehind(Exception):
    """The store holds fewer commits than were made: it was damaged, or is an older copy."""


@dataclass(frozen=True, slots=True)
class LastCommit:
    """Number and time of a store's last commit; zeros if there was none."""

    n: int
    at: Millis


class Store(Protocol):
    """Durable state with one writer. One contract suite (``tests/stores``) tests every adapter."""

    async def peek(self) -> LastCommit:
        """Return the last commit without taking over: nothing changes, and an earlier writer continues.

        Raises what ``open`` raises, and ``StoreBehind``.
        """
        ...

    async def open(self) -> Snapshot:
        """Take the next epoch (all earlier writers are stale from now on) and return the live state.

        Raises ``StoreLocked`` if another process of this machine has the store open.
        """
        ...

    async def reload(self) -> Snapshot:
        """Return the live state again, in the epoch already taken. Raises ``StaleEpoch``."""
        ...

    async def check(self) -> None:
        """Raise ``StaleEpoch`` if another service has taken over, ``StoreUnavailable`` if that is unknown."""
        ...

    async def commit(self, commit: Commit) -> None:
        """Make ``commit`` durable, all or nothing, and append it to the history.

        Raises ``StaleEpoch``, ``SlotTaken``, ``CommitTooLarge`` (nothing changed), ``StoreUnavailable`` or
        ``OutcomeUnknown``.
        """
        ...

    async def ended(self, subject: str | None, before: int | None, limit: int) -> Page[Reservation]:
        """Return ended reservations, latest first, of one owner or of all, and the next page's cursor."""
        ...

    async def find(self, reservation: str) -> Reservation | None:
        """Return the last record of a reservation, live or ended."""
        ...

    async def history(self, reservation: str | None, after: int, limit: int) -> Page[HistoryEntry]:
        """Return the history in commit order, of one reservation or of all, and the next page's cursor."""
        ...

    async def seek(self, at: Millis) -> int:
        """Return the cursor with which ``history`` begins at the first commit made at ``at`` or later."""
        ...

    async def save_usage(self, head: UsageHead, days: Sequence[UsageDay]) -> None:
        """Replace the saved sums of these days, and then the head. Encodes them before it first waits.

        A crash may leave days that are newer than the head. Raises ``StaleEpoch`` or ``StoreUnavailable``.
        """
        ...

    async def load_usage(self) -> SavedUsage | None:
        """Return the saved usage sums; ``None`` if none were saved."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class ServerSight:
    """What the cluster shows of one attempt, all ranks together.

    ``PRESENT`` if any rank's server exists, ``ABSENT`` only if every rank is certainly gone.
    """

    id: str
    attempt: int
    presence: Presence
    complete: bool = True
    """False: at least one rank is gone while others exist (a gang then restarts as a whole)."""
    forming: bool = False
    """Whether missing ranks may not have been made yet; if the server was ready, they are gone."""
    detail: str = ""
    user_stopped: bool = False
    """Its user shut it down from inside (Lab's "Shut Down"), which counts as a stop in the Hub."""
    outage: bool = False
    """It did not fail: its machine, or everything on it, was shut down."""
    jupyter: tuple[str, int] | None = None
    """Host and port where rank 0's Jupyter listens."""
    sshd: Mapping[int, tuple[str, int]] = field(default_factory=dict)
    """Host and port of each running rank's sshd, as users reach it, by rank."""


class Cluster(Protocol):
    """Nodes and servers as observed, not as they should be."""

    async def nodes(self) -> list[Node]:
        """Return all nodes. Raises ``ClusterUnavailable`` if their state is unknown."""
        ...

    async def servers(self) -> list[ServerSight]:
        """Return all existing servers of this hub. Raises ``ClusterUnavailable`` if they are unknown."""
        ...

    async def look(self, claim: Claim) -> ServerSight:
        """Return what is observed of one attempt now; ``UNKNOWN`` if nothing can be observed."""
        ...

    async def remove(self, id: str, attempt: int) -> None:
        """End the servers of an attempt without the Hub (orphans, and stops that overran)."""
        ...

    async def forget_ended(self, held: Collection[tuple[str, int]]) -> None:
        """Delete what is left of servers that ended a while ago.

        Attempts that hold slots are kept: how they ended may still be needed.
        """
        ...

    def watch(self) -> AsyncIterator[ServerSight | list[Node]]:
        """Yield what changed, as soon as it is observed: a server, or all nodes if one changed.

        If something is missing, that is only a hint: ``look`` at it first. Raises ``ClusterUnavailable`` if
        the watch is interrupted: look at everything, then watch again.
        """
        ...

    def hint(self, id: str, attempt: int) -> None:
        """Look now, because something was started."""
        ...

    async def logs(self, id: str, attempt: int, lines: int) -> dict[str, str]:
        """Return last lines of logs by name: ``jupyter``, ``sshd`` … of rank 0, ``sshd-1`` … of others."""
        ...


class ClusterUnavailable(Exception):
    """The cluster did not answer: the state of everything is unknown, and nothing counts as gone."""


class Hub(Protocol):
    """The Hub's REST API, as far as the service needs it. Every call is idempotent."""

    async def start(self, hub_user: str, launch_id: str) -> bool:
        """Start a named server, or continue to start it; return whether the Hub says that it runs.

        Raises ``HubUnavailable`` (not an attempt: outage, 429), ``HubPending``, ``OwnerUnknownToHub`` or
        ``StartRefused`` (with the reason).
        """
        ...

    async def stop(self, hub_user: str, server: str, *, forget: bool) -> bool:
        """Stop a named server, and remove it if ``forget``; a missing server is not an error.

        Returns true if the Hub has done all that it will do, false while it is still stopping the server.
        """
        ...

    async def revoke_tokens(self, hub_user: str, keep: Collection[str]) -> None:
        """Delete all of a user's tokens, except the own tokens of these servers. An unknown user has none.

        Raises ``HubUnavailable``; some may then be deleted.
        """
        ...

    async def known_servers(self) -> set[str]:
        """Return all servers that the Hub runs, starts or stops. Raises ``HubUnavailable``."""
        ...

    async def knows(self, hub_user: str) -> bool:
        """Return whether the Hub has a user of this name. Raises ``HubUnavailable``."""
        ...

    async def guests(self, hub_user: str, server: str) -> frozenset[str] | None:
        """Return the users who may open this server as well as its owner; ``None``: there is no such server.

        Raises ``HubUnavailable``.
        """
        ...

    async def share(self, hub_user: str, server: str, guest: str) -> None:
        """Let a user open the server of another user. Raises ``HubUnavailable`` or ``OwnerUnknownToHub``."""
        ...

    async def unshare(self, hub_user: str, server: str, guest: str) -> None:
        """Undo ``share``. Raises ``HubUnavailable``."""
        ...


class HubUnavailable(Exception):
    """The Hub does not answer, or is busy: try again. This is not a failed start."""


class HubPending(HubUnavailable):
    """The Hub is busy starting or stopping this server: ask again. This is not an outage."""


class OwnerUnknownToHub(Exception):
    """The Hub has no such user (its database was lost, or they never logged in)."""


class StartRefused(Exception):
    """The Hub answered that the start failed; the message says why."""


class StartBrokenOff(StartRefused):
    """The start failed without a reason: a Hub bug, or the user stopped it at that moment."""


class LaunchMaker(Protocol):
    """Makes everything an engine needs to start one admitted attempt (tokens, SSH keys, certificates)."""

    async def make(self, reservation: Reservation) -> Launch:
        """Return the launch of the current attempt, the same at each call."""
        ...

    async def forget_ended(self, held: Collection[tuple[str, int]]) -> None:
        """Delete what was made for attempts that no longer hold slots."""
        ...


@dataclass(frozen=True, slots=True)
class Account:
    """A GitHub account with its present login. The number never changes and is never reused."""

    id: int
    login: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What GitHub says about one account now."""

    account: Account | None
    """``None``: no account has this number."""
    in_team: bool
    may_push: bool
    operator: bool
    teams: tuple[str, ...]
    """The configured teams that the account is in, as ``ORGANISATION/SLUG``."""


@dataclass(frozen=True, slots=True)
class Lists:
    """Everybody whom GitHub lists, complete, by number of the account."""

    team: Mapping[int, str]
    """Members of the team that gives access: number to login."""
    push: Mapping[int, str]
    """Everybody who may push to the repository: number to login."""
    operators: AbstractSet[int]
    teams: Mapping[str, AbstractSet[int]]
    """Members by configured team (``ORGANISATION/SLUG``)."""
    problems: tuple[str, ...] = ()
    """Teams that count as empty because GitHub does not show them: a text for each, without a period."""


class Membership(Protocol):
    """Who may get in, from GitHub. Both calls raise ``MembershipUnavailable`` rather than guess."""

    async def facts(self, id: int) -> Facts:
        """Return the facts about one account."""
        ...

    async def lists(self) -> Lists:
        """Return all lists, with as few requests as possible."""
        ...


class MembershipUnavailable(Exception):
    """GitHub gave no reliable answer; the message says why."""

    def __init__(self, reason: str, retry_at: Millis | None = None) -> None:
        """``retry_at``: the earliest time for another request, if GitHub gave one."""
        super().__init__(reason)
        self.retry_at = retry_at
