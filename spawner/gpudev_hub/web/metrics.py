"""Everything that is counted and measured: names, meanings and values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from gpudev_hub.core.access_model import Access
from gpudev_hub.core.lifecycle import MOVES
from gpudev_hub.core.model import SECOND, ClaimState, NodeStatus, Outcome, State
from gpudev_hub.core.policy import Policy
from gpudev_hub.service.metrics import Histogram, Metrics
from gpudev_hub.service.service import Service
from gpudev_hub.service.sweep import Sweep
from gpudev_hub.service.usage import UsageSums
from gpudev_hub.service.view import View
from gpudev_hub.ssh.bastion import Bastion

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


@dataclass(frozen=True, slots=True, eq=False)
class ServiceCollector(Collector):
    """Read all metrics from the service at each scrape."""

    requests: RequestMetrics
    service: Service
    bastion: Bastion | None
    """``None``: there are no metrics of a bastion."""

    def collect(self) -> Iterator[Metric]:
        """Yield every metric. Without GitHub, there are none of access."""
        service, view = self.service, self.service.view
        yield from _requests(self.requests)
        yield from _service(service.metrics)
        yield from _away(service)
        yield from _state(view, service.policy)
        yield from _reservations(service.metrics, view, service.policy)
        yield from _usage(service.usage)
        if (sweep := service.access.sweep) is not None:
            yield from _access(view, sweep)
        if self.bastion is not None:
            yield GaugeMetricFamily(
                "gpudev_bastions", "Bastions that have asked within a minute.", self.bastion.working()
            )


def exposition(requests: RequestMetrics, service: Service, bastion: Bastion | None) -> str:
    """Return all metrics in the Prometheus text format, version 0.0.4."""
    # A registry of its own: the default one also has metrics of JupyterHub and of the process.
    registry = CollectorRegistry()
    registry.register(ServiceCollector(requests, service, bastion))
    return generate_latest(registry).decode()


def _counter(
    name: str, help: str, labels: Sequence[str], samples: Iterable[tuple[Sequence[str], float]]
) -> Metric:
    family = CounterMetricFamily(name, help, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _gauge(
    name: str, help: str, labels: Sequence[str], samples: Iterable[tuple[Sequence[str], float]]
) -> Metric:
    family = GaugeMetricFamily(name, help, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _histogram(
    name: str, help: str, labels: Sequence[str], found: Iterable[tuple[Sequence[str], Histogram]]
) -> Metric:
    family = HistogramMetricFamily(name, help, labels=labels)
    for values, histogram in found:
        bounds = (*map(repr, histogram.bounds), "+Inf")
        buckets = list(zip(bounds, accumulate(histogram.counts), strict=True))
        family.add_metric(values, buckets, histogram.seconds)
    return family


def _requests(metrics: RequestMetrics) -> Iterator[Metric]:
    yield _counter(
        "gpudev_http_requests_total",
        "Requests answered.",
        ("route", "method", "status"),
        (
            ((route, method, str(status)), count)
            for (route, method, status), count in sorted(metrics.requests.items())
        ),
    )
    yield _histogram(
        "gpudev_http_request_seconds",
        "Time to answer a request in seconds, long polls included.",
        ("route",),
        (((route,), histogram) for route, histogram in sorted(metrics.seconds.items())),
    )


def _service(metrics: Metrics) -> Iterator[Metric]:
    yield _counter(
        "gpudev_events_total",
        "Events processed.",
        ("event",),
        (((event,), count) for event, count in sorted(metrics.events.items())),
    )
    yield _counter(
        "gpudev_refusals_total",
        "Requests refused.",
        ("code",),
        (((code,), count) for code, count in sorted(metrics.refused.items())),
    )
    yield _counter(
        "gpudev_effects_total",
        "Calls to the Hub and the cluster.",
        ("effect", "result"),
        sorted(metrics.effects.items()),
    )
    yield _histogram("gpudev_commit_seconds", "Duration of a commit in seconds.", (), [((), metrics.commits)])
    yield _histogram(
        "gpudev_decision_seconds",
        "Time from the arrival of an event to its commit, in seconds.",
        (),
        [((), metrics.answers)],
    )
    for name, meaning, value in (
        ("gpudev_rebuilds_total", "Number of times the state in memory was reloaded.", metrics.rebuilds),
        ("gpudev_reconciliations_total", "Full passes over nodes and servers.", metrics.reconciled),
        ("gpudev_orphans_removed_total", "Servers removed because they had no reservation.", metrics.orphans),
    ):
        yield CounterMetricFamily(name, meaning, value)


def _away(service: Service) -> Iterator[Metric]:
    yield _gauge(
        "gpudev_away_seconds",
        "For how long a part that the service needs has not answered; 0: it answers.",
        ("part",),
        (
            ((part.removeprefix("the ").lower(),), lasted / SECOND)
            for part, lasted in service.health().away.items()
        ),
    )


def _state(view: View, policy: Policy) -> Iterator[Metric]:
    reservations = Counter((r.request.pool, r.state) for r in view.reservations.values())
    yield _gauge(
        "gpudev_reservations",
        "Live reservations.",
        ("gpu_type", "state"),
        (
            ((pool.name, state), reservations[pool.name, state])
            for pool in policy.pools
            for state in State
            if state is not State.ENDED
        ),
    )
    nodes = Counter((node.pool, node.status) for node in view.nodes.values())
    yield _gauge(
        "gpudev_nodes",
        "Nodes by status.",
        ("gpu_type", "status"),
        (((pool.name, status), nodes[pool.name, status]) for pool in policy.pools for status in NodeStatus),
    )
    yield _gauge(
        "gpudev_policy_probe_failing",
        "1: nothing shows that network policies are enforced on the node, so nothing new starts there.",
        ("node",),
        (((node.name,), int(node.unproven)) for _, node in sorted(view.nodes.items())),
    )
    yield from _nodes(view)
    totals: Counter[str] = Counter()
    for node in view.nodes.values():
        totals[node.pool] += node.gpus
    yield _gauge(
        "gpudev_gpus",
        "GPUs of all nodes.",
        ("gpu_type",),
        (((pool.name,), totals[pool.name]) for pool in policy.pools),
    )
    taken: Counter[tuple[str, ClaimState]] = Counter()
    for claim in view.claims.values():
        taken[claim.pool, claim.state] += sum(len(part.slots) for part in claim.allocation)
    yield _gauge(
        "gpudev_gpus_claimed",
        "GPUs that reservations hold.",
        ("gpu_type", "claim"),
        (((pool.name, state), taken[pool.name, state]) for pool in policy.pools for state in ClaimState),
    )


def _reservations(metrics: Metrics, view: View, policy: Policy) -> Iterator[Metric]:
    now, moves = view.now(), metrics.moves
    waiting = [r for r in view.reservations.values() if r.state is State.QUEUED and r.blocked is None]
    yield _gauge(
        "gpudev_queue_oldest_seconds",
        "Age of the oldest request in the queue, in seconds; 0: none waits. Blocked requests do not count.",
        ("gpu_type",),
        (
            (
                (pool.name,),
                max((now - r.created_at for r in waiting if r.request.pool == pool.name), default=0) / SECOND,
            )
            for pool in policy.pools
        ),
    )
    yield _histogram(
        "gpudev_queue_wait_seconds",
        "Time from a request to its first start, in seconds.",
        ("gpu_type",),
        (((pool.name,), metrics.waits[pool.name]) for pool in policy.pools),
    )
    yield _histogram(
        "gpudev_start_seconds",
        "Time from the start of a server until it is ready, in seconds, failed attempts included.",
        ("gpu_type",),
        (((pool.name,), metrics.starts[pool.name]) for pool in policy.pools),
    )
    yield _counter(
        "gpudev_transitions_total",
        "Reservations that changed their state.",
        ("gpu_type", "before", "after"),
        (
            ((pool.name, before or "new", after), moves[pool.name, before, after])
            for pool in policy.pools
            for before, after in _MOVES
        ),
    )
    yield _counter(
        "gpudev_ended_total",
        "Reservations that ended.",
        ("gpu_type", "outcome"),
        (
            ((pool.name, outcome), metrics.ended[pool.name, outcome])
            for pool in policy.pools
            for outcome in Outcome
        ),
    )


def _nodes(view: View) -> Iterator[Metric]:
    """Yield metrics of single nodes: those that are not well, and those that end."""
    nodes = [view.nodes[name] for name in sorted(view.nodes)]
    yield _gauge(
        "gpudev_node_unhealthy",
        "1: this condition of the node is False; there is no sample for nodes that are well.",
        ("pool", "node", "condition"),
        (((node.pool, node.name, condition), 1) for node in nodes for condition in node.unhealthy),
    )
    ends: dict[str, int] = {}
    for node in nodes:
        if node.block is not None and node.block.ends_at is not None:
            ends[node.block.reservation] = node.block.ends_at
    yield _gauge(
        "gpudev_capacity_block_end_timestamp_seconds",
        "Last known end of a capacity block that nodes belong to, in Unix seconds.",
        ("reservation",),
        (((reservation,), at / SECOND) for reservation, at in sorted(ends.items())),
    )


def _usage(usage: UsageSums) -> Iterator[Metric]:
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
        yield _counter(
            name,
            meaning,
            ("gpu_type", "gpus"),
            (((pool, str(gpus)), millis / SECOND) for (pool, gpus), millis in sorted(values.items())),
        )


def _access(view: View, sweep: Sweep) -> Iterator[Metric]:
    people = Counter(person.access for person in view.people.values())
    yield _gauge(
        "gpudev_people",
        "People who have logged in with GitHub, by access.",
        ("access",),
        (((access,), people[access]) for access in Access),
    )
    yield _counter(
        "gpudev_access_checks_total",
        "Comparisons of everybody with GitHub.",
        ("result",),
        ((("complete",), sweep.sweeps), (("incomplete",), sweep.failures)),
    )
    yield CounterMetricFamily("gpudev_revocations_total", "People who lost access.", sweep.revoked)
    for name, meaning, value in (
        (
            "gpudev_access_checked_seconds",
            "Time of the last complete comparison with GitHub, in Unix seconds; 0: never.",
            (view.swept_at or 0) / SECOND,
        ),
        (
            "gpudev_access_grace_seconds",
            "For how long people keep access while GitHub confirms nobody.",
            sweep.grace / SECOND,
        ),
        ("gpudev_access_brake", "1: too many people would lose access.", int(bool(sweep.brake))),
        ("gpudev_access_held", "People whom the brake keeps from losing access.", len(sweep.held)),
        (
            "gpudev_github_limited_until_seconds",
            "When GitHub allows requests again, in Unix seconds; 0: now.",
            (sweep.retry_at or 0) / SECOND,
        ),
    ):
        yield GaugeMetricFamily(name, meaning, value)
