"""What the service needs from the outside: a store and a cluster. Adapters implement these."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Protocol

from .commit import Commit, HistoryEntry, Snapshot
from .gate import Launch
from .model import Claim, Millis, Node, Presence, Reservation
from .usage import SavedUsage, UsageDay, UsageHead


class StoreUnavailable(Exception):
    """The store did not answer; nothing is known to have changed. Try again."""


class OutcomeUnknown(StoreUnavailable):
    """The store may or may not have made the commit; ``load`` again to find out (``Snapshot.n``)."""


class StaleEpoch(Exception):
    """Another service has taken over: this one must stop, it can write no more."""


class SlotTaken(Exception):
    """A slot to be taken has an owner, or one to be freed has another one: the state in memory is wrong."""


class CommitTooLarge(Exception):
    """More than the store takes at once; nothing was changed."""


class StoreLocked(Exception):
    """Another process has this store open."""


class StoreEmpty(Exception):
    """Servers run beside a store that has never had a commit: it is not theirs, or was emptied."""


class StoreBehind(Exception):
    """The store holds fewer commits than were made: it was damaged, or is an older one."""


@dataclass(frozen=True, slots=True)
class LastCommit:
    """Number and time of a store's last commit; zeros where there has never been one."""

    n: int
    at: Millis


class Store(Protocol):
    """Durable state with one writer. One contract suite (``tests/stores``) covers every adapter."""

    async def peek(self) -> LastCommit:
        """Return the last commit without taking over: nothing is changed, and an earlier writer goes on.

        Raises what ``open`` raises, and ``StoreBehind``.
        """
        ...

    async def open(self) -> Snapshot:
        """Take the next epoch (every earlier writer is stale from now on) and return the live state.

        Raises ``StoreLocked`` if another process of this machine has it open.
        """
        ...

    async def reload(self) -> Snapshot:
        """The live state again under the epoch already taken; raises ``StaleEpoch`` if it is not ours now."""
        ...

    async def check(self) -> None:
        """Raises ``StaleEpoch`` if another service has taken over, ``StoreUnavailable`` if nobody knows."""
        ...

    async def commit(self, commit: Commit) -> None:
        """Make ``commit`` durable, all or nothing, and append it to the history.

        Raises ``StaleEpoch``, ``SlotTaken``, ``CommitTooLarge`` (nothing changed), ``StoreUnavailable`` or
        ``OutcomeUnknown``.
        """
        ...

    async def ended(
        self, subject: str | None, before: int | None, limit: int
    ) -> tuple[list[Reservation], int | None]:
        """Ended reservations, latest first, of one owner or of all, and the cursor of the next page."""
        ...

    async def find(self, reservation: str) -> Reservation | None:
        """The last record of a reservation, live or ended."""
        ...

    async def history(
        self, reservation: str | None, after: int, limit: int
    ) -> tuple[list[HistoryEntry], int | None]:
        """History in commit order, of one reservation or of everything, and the cursor of the next page."""
        ...

    async def seek(self, at: Millis) -> int:
        """The cursor with which ``history`` begins at the first commit made at ``at`` or later."""
        ...

    async def save_usage(self, head: UsageHead, days: Sequence[UsageDay]) -> None:
        """Replace the saved sums of these days, and then the head. Encodes them before it first waits.

        A crash may leave days that are newer than the head. Raises ``StaleEpoch`` or ``StoreUnavailable``.
        """
        ...

    async def load_usage(self) -> SavedUsage | None:
        """Return the saved usage sums; ``None`` where none were ever saved."""
        ...

    async def close(self) -> None:
        """Let go of the store."""
        ...


@dataclass(frozen=True, slots=True)
class ServerSight:
    """What the cluster shows of one attempt, all ranks taken together.

    ``PRESENT`` if any rank's server is there, ``ABSENT`` only if every rank is surely gone.
    """

    id: str
    attempt: int
    presence: Presence
    complete: bool = True
    """False: at least one rank is gone while others are there (a gang then restarts as a whole)."""
    forming: bool = False
    """What is missing may not have been made yet; only of a server that was ready it must be gone."""
    detail: str = ""
    user_stopped: bool = False
    """Its user shut it down from inside (Lab's "Shut Down"): as good as a stop in the Hub."""
    outage: bool = False
    """It did not fail: its machine, or everything on it, was shut down."""
    jupyter: tuple[str, int] | None = None
    """Host and port where rank 0's Jupyter listens."""
    sshd: Mapping[int, tuple[str, int]] = field(default_factory=dict)
    """Host and port of each rank's sshd, as users reach it, by rank; without the ranks that don't run."""


class Cluster(Protocol):
    """Nodes and servers as observed; never what ought to be."""

    async def nodes(self) -> list[Node]:
        """All nodes; raises ``ClusterUnavailable`` when nothing can be learnt."""
        ...

    async def servers(self) -> list[ServerSight]:
        """Every server of ours that exists; raises ``ClusterUnavailable`` when nothing can be learnt."""
        ...

    async def look(self, claim: Claim) -> ServerSight:
        """What is seen of one attempt now; ``UNKNOWN`` when that can't be learnt."""
        ...

    async def remove(self, id: str, attempt: int) -> None:
        """End the servers of an attempt without the Hub's help (orphans, and stops that overran)."""
        ...

    async def forget_ended(self, held: Collection[tuple[str, int]]) -> None:
        """Clear away what is left of servers that ended a while ago.

        Not of those whose attempt holds slots: how they ended may still have to be learnt.
        """
        ...

    def watch(self) -> AsyncIterator[ServerSight | list[Node]]:
        """What has changed, as soon as it is seen: a server that came or went, or all nodes if one did.

        A hint only, where something is missing: ``look`` before it counts.

        Raises ``ClusterUnavailable`` when watching is cut: look at everything, then watch on.
        """
        ...

    def hint(self, id: str, attempt: int) -> None:
        """Something was started: look now."""
        ...

    async def logs(self, id: str, attempt: int, lines: int) -> dict[str, str]:
        """The last lines of the server's logs by name (``jupyter``, ``sshd``)."""
        ...


class ClusterUnavailable(Exception):
    """The cluster did not answer: everything there is unknown, nothing is gone."""


class Hub(Protocol):
    """The Hub's REST API, as far as the service needs it. Every call is idempotent."""

    async def start(self, hub_user: str, launch_id: str) -> bool:
        """Start (or go on starting) a named server; true once the Hub says that it runs.

        Raises ``HubUnavailable`` (not an attempt: outage, 429), ``HubPending``, ``OwnerUnknownToHub`` or
        ``StartRefused`` (with the reason).
        """
        ...

    async def stop(self, hub_user: str, server: str, *, forget: bool) -> bool:
        """Stop a named server, and remove it if it is to be forgotten; one that is not there is no error.

        True: the Hub has done all that it will do; false: it is still stopping it.
        """
        ...

    async def revoke_tokens(self, hub_user: str, keep: Collection[str]) -> None:
        """Delete all of a user's tokens, except the own tokens of these servers; of nobody, there are none.

        Raises ``HubUnavailable``; some may then be deleted.
        """
        ...

    async def known_servers(self) -> set[str]:
        """All servers that the Hub leads to, or is starting or stopping. Raises ``HubUnavailable``."""
        ...

    async def knows(self, hub_user: str) -> bool:
        """Whether the Hub has a user of this name. Raises ``HubUnavailable``."""
        ...

    async def guests(self, hub_user: str, server: str) -> frozenset[str] | None:
        """Users who may open this server beside its owner; ``None``: the Hub has no such server.

        Raises ``HubUnavailable``.
        """
        ...

    async def share(self, hub_user: str, server: str, guest: str) -> None:
        """Let a user open the server of another. Raises ``HubUnavailable`` or ``OwnerUnknownToHub``."""
        ...

    async def unshare(self, hub_user: str, server: str, guest: str) -> None:
        """Take that back. Raises ``HubUnavailable``."""
        ...


class HubUnavailable(Exception):
    """The Hub is away, busy or pending: try again, this is no failed start."""


class HubPending(HubUnavailable):
    """The Hub answers, and is busy starting or stopping this very server: ask again, this is no outage."""


class OwnerUnknownToHub(Exception):
    """The Hub has no such user (its database was lost, or he never logged in)."""


class StartRefused(Exception):
    """The Hub answered that the start failed; the message says why."""


class StartBrokenOff(StartRefused):
    """So it was, without a word of the spawner's: a defect of the Hub's, or its user stops it just now."""


class LaunchMaker(Protocol):
    """Makes everything an engine needs to start one admitted attempt (tokens, SSH keys, certificates)."""

    async def make(self, reservation: Reservation) -> Launch:
        """The launch of the current attempt: the same again if asked twice."""
        ...

    async def forget_ended(self, held: Collection[tuple[str, int]]) -> None:
        """Clear away what was made for attempts that hold no slots any more."""
        ...


@dataclass(frozen=True, slots=True)
class Account:
    """A GitHub account as it is called now; the number never changes and never comes back."""

    id: int
    login: str


@dataclass(frozen=True, slots=True)
class Facts:
    """What GitHub says of one account at this moment."""

    account: Account | None
    """``None``: no account has this number any more."""
    in_team: bool
    may_push: bool
    operator: bool
    teams: tuple[str, ...]
    """The configured teams that the account is in, as ``ORGANISATION/SLUG``."""


@dataclass(frozen=True, slots=True)
class Lists:
    """Everybody whom GitHub lists, complete: accounts by number."""

    team: Mapping[int, str]
    """Login by number of the members of the team that gives access."""
    push: Mapping[int, str]
    """Login by number of all who may push to the repository."""
    operators: AbstractSet[int]
    teams: Mapping[str, AbstractSet[int]]
    """Members by configured team (``ORGANISATION/SLUG``)."""


class Membership(Protocol):
    """Who may enter, as GitHub says. Both calls raise ``MembershipUnavailable`` rather than guess."""

    async def facts(self, id: int) -> Facts:
        """What is true of one account now."""
        ...

    async def lists(self) -> Lists:
        """All lists in as few requests as possible."""
        ...


class MembershipUnavailable(Exception):
    """GitHub said nothing that can be believed; the message says why, in words for people."""

    def __init__(self, reason: str, retry_at: Millis | None = None) -> None:
        """``retry_at``: no earlier than this, where GitHub said so."""
        super().__init__(reason)
        self.retry_at = retry_at
