"""Everything that is counted and measured: names, meanings and values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from gpudev_hub.core.access_model import Access
from gpudev_hub.core.lifecycle import MOVES
from gpudev_hub.core.model import SECOND, ClaimState, NodeStatus, Outcome, Policy, State
from gpudev_hub.service.metrics import Histogram, Metrics
from gpudev_hub.service.service import Service
from gpudev_hub.service.sweep import Sweep
from gpudev_hub.service.usage import UsageSums
from gpudev_hub.service.view import View
from gpudev_hub.ssh.bastion import Bastion

from .prometheus import histograms, metric

_MOVES: Final = [
    (None, State.QUEUED),
    (None, State.STARTING),
    *((before, after) for before in MOVES for after in sorted(MOVES[before])),
]
"""Changes of state; ``None``: a new request. All are shown: what first appears as 1 has no rate."""


class RequestMetrics:
    """Requests by route, method and status, with their durations."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.seconds: dict[str, Histogram] = {}

    def saw(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self.requests[route, method, status] += 1
        self.seconds.setdefault(route, Histogram()).saw(seconds)


def exposition(requests: RequestMetrics, service: Service, bastion: Bastion | None) -> str:
    """Return the whole text. Without GitHub there are no figures on access; without a bastion, none on it."""
    sweep, view = service.access.sweep, service.view
    parts = (
        _requests(requests),
        _service(service.metrics),
        _away(service),
        _state(view, service.policy),
        _reservations(service.metrics, view, service.policy),
        _usage(service.usage),
        iter(()) if sweep is None else _access(view, sweep),
        iter(()) if bastion is None else _bastion(bastion),
    )
    return "\n".join([*(line for part in parts for line in part), ""])


def _requests(metrics: RequestMetrics) -> Iterator[str]:
    yield from metric(
        "gpudev_http_requests_total",
        "counter",
        "Requests answered.",
        (
            ({"route": route, "method": method, "status": str(status)}, count)
            for (route, method, status), count in sorted(metrics.requests.items())
        ),
    )
    yield from histograms(
        "gpudev_http_request_seconds",
        "Time to answer a request in seconds, long polls included.",
        [({"route": route}, histogram) for route, histogram in sorted(metrics.seconds.items())],
    )


def _service(metrics: Metrics) -> Iterator[str]:
    yield from metric(
        "gpudev_events_total",
        "counter",
        "Events processed.",
        (({"event": event}, count) for event, count in sorted(metrics.events.items())),
    )
    yield from metric(
        "gpudev_refusals_total",
        "counter",
        "Requests refused.",
        (({"code": code}, count) for code, count in sorted(metrics.refused.items())),
    )
    yield from metric(
        "gpudev_effects_total",
        "counter",
        "Calls to the Hub and the cluster.",
        (
            ({"effect": effect, "result": result}, count)
            for (effect, result), count in sorted(metrics.effects.items())
        ),
    )
    yield from histograms(
        "gpudev_commit_seconds", "Duration of a commit in seconds.", [({}, metrics.commits)]
    )
    yield from histograms(
        "gpudev_decision_seconds",
        "Time from the arrival of an event to its commit, in seconds.",
        [({}, metrics.answers)],
    )
    for name, meaning, value in (
        ("gpudev_rebuilds_total", "Number of times the state in memory was reloaded.", metrics.rebuilds),
        ("gpudev_reconciliations_total", "Full passes over nodes and servers.", metrics.reconciled),
        ("gpudev_orphans_removed_total", "Servers removed because they had no reservation.", metrics.orphans),
    ):
        yield from metric(name, "counter", meaning, [({}, value)])


def _away(service: Service) -> Iterator[str]:
    yield from metric(
        "gpudev_away_seconds",
        "gauge",
        "For how long a part that the service needs has not answered; 0: it answers.",
        (
            ({"part": part.removeprefix("the ").lower()}, lasted / SECOND)
            for part, lasted in service.health().away.items()
        ),
    )


def _state(view: View, policy: Policy) -> Iterator[str]:
    reservations = Counter((r.request.pool, r.state) for r in view.reservations.values())
    yield from metric(
        "gpudev_reservations",
        "gauge",
        "Live reservations.",
        (
            ({"gpu_type": pool.name, "state": state}, reservations[pool.name, state])
            for pool in policy.pools
            for state in State
            if state is not State.ENDED
        ),
    )
    nodes = Counter((node.pool, node.status) for node in view.nodes.values())
    yield from metric(
        "gpudev_nodes",
        "gauge",
        "Nodes by status.",
        (
            ({"gpu_type": pool.name, "status": status}, nodes[pool.name, status])
            for pool in policy.pools
            for status in NodeStatus
        ),
    )
    yield from metric(
        "gpudev_policy_probe_failing",
        "gauge",
        "1: nothing shows that network policies are enforced on the node, so nothing new starts there.",
        (({"node": node.name}, int(node.unproven)) for _, node in sorted(view.nodes.items())),
    )
    yield from _nodes(view)
    totals: Counter[str] = Counter()
    for node in view.nodes.values():
        totals[node.pool] += node.gpus
    yield from metric(
        "gpudev_gpus",
        "gauge",
        "GPUs of all nodes.",
        (({"gpu_type": p.name}, totals[p.name]) for p in policy.pools),
    )
    taken: Counter[tuple[str, ClaimState]] = Counter()
    for claim in view.claims.values():
        taken[claim.pool, claim.state] += sum(len(part.slots) for part in claim.allocation)
    yield from metric(
        "gpudev_gpus_claimed",
        "gauge",
        "GPUs that reservations hold.",
        (
            ({"gpu_type": pool.name, "claim": state}, taken[pool.name, state])
            for pool in policy.pools
            for state in ClaimState
        ),
    )


def _reservations(metrics: Metrics, view: View, policy: Policy) -> Iterator[str]:
    now, moves = view.now(), metrics.moves
    waiting = [r for r in view.reservations.values() if r.state is State.QUEUED and r.blocked is None]
    yield from metric(
        "gpudev_queue_oldest_seconds",
        "gauge",
        "Age of the oldest request in the queue, in seconds; 0: none waits. Blocked requests do not count.",
        (
            (
                {"gpu_type": pool.name},
                max((now - r.created_at for r in waiting if r.request.pool == pool.name), default=0) / SECOND,
            )
            for pool in policy.pools
        ),
    )
    yield from histograms(
        "gpudev_queue_wait_seconds",
        "Time from a request to its first start, in seconds.",
        (({"gpu_type": pool.name}, metrics.waits[pool.name]) for pool in policy.pools),
    )
    yield from histograms(
        "gpudev_start_seconds",
        "Time from the start of a server until it is ready, in seconds, failed attempts included.",
        (({"gpu_type": pool.name}, metrics.starts[pool.name]) for pool in policy.pools),
    )
    yield from metric(
        "gpudev_transitions_total",
        "counter",
        "Reservations that changed their state.",
        (
            (
                {"gpu_type": pool.name, "before": before or "new", "after": after},
                moves[pool.name, before, after],
            )
            for pool in policy.pools
            for before, after in _MOVES
        ),
    )
    yield from metric(
        "gpudev_ended_total",
        "counter",
        "Reservations that ended.",
        (
            ({"gpu_type": pool.name, "outcome": outcome}, metrics.ended[pool.name, outcome])
            for pool in policy.pools
            for outcome in Outcome
        ),
    )


def _nodes(view: View) -> Iterator[str]:
    """Figures of single nodes: those that are not well, and those that end."""
    nodes = [view.nodes[name] for name in sorted(view.nodes)]
    yield from metric(
        "gpudev_node_unhealthy",
        "gauge",
        "1: this condition of the node is False; there is no sample for nodes that are well.",
        (
            ({"pool": node.pool, "node": node.name, "condition": condition}, 1)
            for node in nodes
            for condition in node.unhealthy
        ),
    )
    ends: dict[str, int] = {}
    for node in nodes:
        if node.block is not None and node.block.ends_at is not None:
            ends[node.block.reservation] = node.block.ends_at
    yield from metric(
        "gpudev_capacity_block_end_timestamp_seconds",
        "gauge",
        "Last known end of a capacity block that nodes belong to, in Unix seconds.",
        (({"reservation": reservation}, at / SECOND) for reservation, at in sorted(ends.items())),
    )


def _usage(usage: UsageSums) -> Iterator[str]:
    """By pool and size; people would be too many labels."""
    if not usage.complete:
        return  # a counter must not start below where it was
    reserved, held = usage.totals()
    for name, meaning, values in (
        (
            "gpudev_gpu_seconds_reserved_total",
            "GPU-seconds that requests and extensions asked for.",
            reserved,
        ),
        ("gpudev_gpu_seconds_held_total", "GPU-seconds that reservations held GPUs, until now.", held),
    ):
        yield from metric(
            name,
            "counter",
            meaning,
            (
                ({"gpu_type": pool, "gpus": str(gpus)}, millis / SECOND)
                for (pool, gpus), millis in sorted(values.items())
            ),
        )


def _access(view: View, sweep: Sweep) -> Iterator[str]:
    people = Counter(person.access for person in view.people.values())
    yield from metric(
        "gpudev_people",
        "gauge",
        "People who have logged in with GitHub, by access.",
        (({"access": access}, people[access]) for access in Access),
    )
    yield from metric(
        "gpudev_access_checks_total",
        "counter",
        "Comparisons of everybody with GitHub.",
        (({"result": r}, n) for r, n in (("complete", sweep.sweeps), ("incomplete", sweep.failures))),
    )
    for name, kind, meaning, value in (
        (
            "gpudev_access_checked_seconds",
            "gauge",
            "Time of the last complete comparison with GitHub, in Unix seconds; 0: never.",
            (view.swept_at or 0) / SECOND,
        ),
        (
            "gpudev_access_grace_seconds",
            "gauge",
            "For how long people keep access while GitHub confirms nobody.",
            sweep.grace / SECOND,
        ),
        ("gpudev_access_brake", "gauge", "1: too many people would lose access.", int(bool(sweep.brake))),
        ("gpudev_access_held", "gauge", "People whom the brake keeps from losing access.", len(sweep.held)),
        ("gpudev_revocations_total", "counter", "People who lost access.", sweep.revoked),
        (
            "gpudev_github_limited_until_seconds",
            "gauge",
            "When GitHub allows requests again, in Unix seconds; 0: now.",
            (sweep.retry_at or 0) / SECOND,
        ),
    ):
        yield from metric(name, kind, meaning, [({}, value)])


def _bastion(bastion: Bastion) -> Iterator[str]:
    yield from metric(
        "gpudev_bastions", "gauge", "Bastions that have asked within a minute.", [({}, bastion.working())]
    )
