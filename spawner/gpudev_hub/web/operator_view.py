"""Texts of the operator pages: who uses a node, and what each action does to whom."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gpudev import wire
from gpudev_hub.core.model import Node, NodeStatus, Owner, Reservation, State
from gpudev_hub.core.policy import Policy
from gpudev_hub.core.words import counted, listing
from gpudev_hub.service.view import View

from .page_view import size

STATUSES = {
    NodeStatus.UP: ("Up", "good"),
    NodeStatus.DOWN: ("Down", "bad"),
    NodeStatus.UNKNOWN: ("Unknown", "wait"),
    NodeStatus.DRAINED: ("Drained", "wait"),
}


@dataclass(frozen=True, slots=True)
class Use:
    """A server that holds GPUs of a node, or a request that is planned there."""

    id: str
    title: str
    owner: str


@dataclass(frozen=True, slots=True)
class NodeUse:
    """A node, with what runs there and what is planned there."""

    node: Node
    held: int
    """GPUs that servers hold, also those that are being stopped."""
    servers: tuple[Use, ...]
    """Servers that start or run."""
    planned: tuple[Use, ...]

    @property
    def pill(self) -> tuple[str, str]:
        """(word, tone) of its status."""
        return STATUSES[self.node.status]

    @property
    def owners(self) -> list[str]:
        """Logins of the owners of its servers."""
        return sorted({use.owner for use in self.servers})

    @property
    def fingerprint(self) -> str:
        """Identifies the servers named in a confirmation."""
        return " ".join(sorted(use.id for use in self.servers))

    def effects(self, action: wire.NodeAction) -> list[str]:
        """Return, in sentences, what an action does to the node and to whom."""
        name = self.node.name
        if action == "undrain":
            return [
                f"{name} gets new servers again as soon as it is up.",
                "Running servers are not affected.",
            ]
        first = f"No server on {name} is affected."
        if self.servers:
            count, which = counted(len(self.servers), "server"), _names(self.servers)
            one = len(self.servers) == 1
            if action == "lost":
                verb = "ends" if one else "end"
                first = f"{count} on {name} {verb} now, with the outcome “node lost”: {which}."
            else:
                runs, ends = ("keeps", "its reservation ends") if one else ("keep", "their reservations end")
                first = f"{count} on {name} {runs} running until {ends}: {which}."
        found = [first, f"Nothing new starts on {name} until you undrain it."]
        if self.planned:
            count, which = counted(len(self.planned), "waiting request"), _names(self.planned)
            found.append(f"{count} planned there may start later than guaranteed: {which}.")
        return found


def node_uses(view: View) -> list[NodeUse]:
    """Return every node with its use, by name."""
    return [_use(view, view.nodes[name]) for name in sorted(view.nodes)]


def _use(view: View, node: Node) -> NodeUse:
    held = 0
    servers: dict[str, Use] = {}
    for claim in view.claims.values():
        slots = sum(len(part.slots) for part in claim.allocation if part.node == node.name)
        if not slots:
            continue
        held += slots
        record = view.reservations.get(claim.reservation)
        # A claim may also be of an earlier attempt, or of a reservation that has ended.
        runs = record is not None and record.state in (State.STARTING, State.READY)
        if record is not None and runs and record.attempt == claim.attempt:
            servers[record.id] = Use(record.id, _title(record), record.owner.login)
    planned = [
        Use(record.id, _title(record), record.owner.login)
        for record in sorted(view.reservations.values(), key=lambda record: record.seq)
        if record.state is State.QUEUED and record.place is not None and node.name in record.place.nodes
    ]
    return NodeUse(node, held, tuple(servers[key] for key in sorted(servers)), tuple(planned))


def end_effects(r: wire.Reservation) -> list[str]:
    """Return, in sentences, what ending a reservation does to its owner."""
    title = r.name or r.id
    what = size(r.gpus, r.nodes)
    if r.state == "queued":
        return [f"1 request of {r.owner} leaves the queue: {title} ({what}).", "No server runs for it."]
    where = listing([part.node for part in r.allocation], "and")
    return [
        f"1 server of {r.owner} ends now: {title} ({what} on {where}).",
        f"Its programs stop. Files in {r.owner}'s home stay.",
        "The GPUs go to the next request in the queue.",
    ]


def own_limits(policy: Policy, view: View) -> set[str]:
    """Return the subjects that have limits of their own."""
    scopes = (scope.partition(":") for scope, _ in view.limits)
    return {*policy.personal, *(name for kind, _, name in scopes if kind == "person")}


def people(policy: Policy, reservations: Iterable[Reservation]) -> list[Owner]:
    """Return everyone who has a live reservation or limits of their own, by login."""
    found = {
        subject: Owner(subject, name, name)
        for subject in policy.personal
        for name in [subject.rpartition(":")[2]]
    }
    found |= {record.owner.subject: record.owner for record in reservations}
    return sorted(found.values(), key=lambda owner: (owner.login, owner.subject))


def _title(record: Reservation) -> str:
    return record.request.name or record.id


def _names(uses: Sequence[Use]) -> str:
    return listing([f"{use.title} ({use.owner})" for use in uses], "and")
