"""All metrics: names, descriptions and values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, product
from typing import Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from gpudev_hub.core.access_model import Access
from gpudev_hub.core.lifecycle import MOVES
from gpudev_hub.core.model import SECOND, ClaimState, NodeStatus, Outcome, State
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
"""Changes of state; ``None``: a new request. All have samples: one that first appears as 1 has no rate."""


class RequestMetrics:
    """Requests by route, method and status, with their durations."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.seconds: dict[str, Histogram] = {}

    def saw(self, route: str, method: str, status: int, seconds: float) -> None:
        self.requests[route, method, status] += 1
        self.seconds.setdefault(route, Histogram()).saw(seconds)


@dataclass(frozen=True, slots=True, eq=False)
class ServiceCollector(Collector):
    """Reads all metrics from the service at each scrape."""

    requests: RequestMetrics
    service: Service
    bastion: Bastion | None
    """``None``: no metrics of a bastion."""

    def collect(self) -> Iterator[Metric]:
        """Yield every metric; those of access only with GitHub."""
        service, view = self.service, self.service.view
        pools = [pool.name for pool in service.policy.pools]
        yield from _requests(self.requests)
        yield from _service(service.metrics)
        yield from _state(service, pools)
        yield from _nodes(view, pools)
        yield from _reservations(service.metrics, view, pools)
        yield from _usage(service.usage)
        if (sweep := service.access.sweep) is not None:
            yield from _access(view, sweep)
        if self.bastion is not None:
            yield GaugeMetricFamily(
                "gpudev_bastions", "Bastions that have asked within a minute.", self.bastion.working()
            )


Samples = Iterable[tuple[object, float]]
"""(label values, value) of each sample. The value of a single label need not be a tuple."""


def _family(
    kind: type[CounterMetricFamily | GaugeMetricFamily],
    name: str,
    help: str,
    labels: Sequence[str],
    samples: Samples,
) -> Metric:
    family = kind(name, help, labels=labels)
    for key, value in samples:
        family.add_metric(_texts(key), value)
    return family


_counter = partial(_family, CounterMetricFamily)
_gauge = partial(_family, GaugeMetricFamily)


def _histogram(
    name: str, help: str, labels: Sequence[str], found: Iterable[tuple[object, Histogram]]
) -> Metric:
    family = HistogramMetricFamily(name, help, labels=labels)
    for key, histogram in found:
        bounds = (*map(repr, histogram.bounds), "+Inf")
        buckets = list(zip(bounds, accumulate(histogram.counts), strict=True))
        family.add_metric(_texts(key), buckets, histogram.seconds)
    return family


def _texts(key: object) -> list[str]:
    return [str(value) for value in (key if isinstance(key, tuple) else (key,))]


def _each(counts: Mapping[Any, float], *values: Iterable[str]) -> Samples:
    """Return a sample for every combination of label values, also for those with a count of 0."""
    return [(key, counts[key]) for key in product(*values)]


def _requests(metrics: RequestMetrics) -> Iterator[Metric]:
    yield _counter(
        "gpudev_http_requests_total",
        "Requests answered.",
        ("route", "method", "status"),
        sorted(metrics.requests.items()),
    )
    yield _histogram(
        "gpudev_http_request_seconds",
        "Time to answer a request in seconds, long polls included.",
        ("route",),
        sorted(metrics.seconds.items()),
    )


def _service(metrics: Metrics) -> Iterator[Metric]:
    yield _counter("gpudev_events_total", "Events processed.", ("event",), sorted(metrics.events.items()))
    yield _counter("gpudev_refusals_total", "Requests refused.", ("code",), sorted(metrics.refused.items()))
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


def _state(service: Service, pools: Sequence[str]) -> Iterator[Metric]:
    view = service.view
    yield _gauge(
        "gpudev_away_seconds",
        "For how long a part that the service needs has not answered; 0: it answers.",
        ("part",),
        [(part.removeprefix("the ").lower(), t / SECOND) for part, t in service.health().away.items()],
    )
    yield _gauge(
        "gpudev_reservations",
        "Live reservations.",
        ("gpu_type", "state"),
        _each(
            Counter((r.request.pool, r.state) for r in view.reservations.values()),
            pools,
            [state for state in State if state is not State.ENDED],
        ),
    )


def _nodes(view: View, pools: Sequence[str]) -> Iterator[Metric]:
    nodes = [view.nodes[name] for name in sorted(view.nodes)]
    yield _gauge(
        "gpudev_nodes",
        "Nodes by status.",
        ("gpu_type", "status"),
        _each(Counter((node.pool, node.status) for node in nodes), pools, NodeStatus),
    )
    yield _gauge(
        "gpudev_policy_probe_failing",
        "1: nothing shows that network policies are enforced on the node, so nothing new starts there.",
        ("node",),
        [(node.name, node.unproven) for node in nodes],
    )
    yield _gauge(
        "gpudev_node_unhealthy",
        "1: this condition of the node is False; there is no sample for nodes that are well.",
        ("pool", "node", "condition"),
        [((node.pool, node.name, condition), 1) for node in nodes for condition in node.unhealthy],
    )
    ends = {
        node.block.reservation: node.block.ends_at / SECOND
        for node in nodes
        if node.block is not None and node.block.ends_at is not None
    }
    yield _gauge(
        "gpudev_capacity_block_end_timestamp_seconds",
        "Last known end of a capacity block that nodes belong to, in Unix seconds.",
        ("reservation",),
        sorted(ends.items()),
    )
    yield _gauge(
        "gpudev_gpus",
        "GPUs of all nodes.",
        ("gpu_type",),
        [(pool, sum(node.gpus for node in nodes if node.pool == pool)) for pool in pools],
    )
    taken: Counter[tuple[str, ...]] = Counter()
    for claim in view.claims.values():
        taken[claim.pool, claim.state] += claim.gpus
    yield _gauge(
        "gpudev_gpus_claimed",
        "GPUs that reservations hold.",
        ("gpu_type", "claim"),
        _each(taken, pools, ClaimState),
    )


def _reservations(metrics: Metrics, view: View, pools: Sequence[str]) -> Iterator[Metric]:
    now = view.now()
    waiting = [r for r in view.reservations.values() if r.state is State.QUEUED and r.blocked is None]
    ages = {pool: [now - r.created_at for r in waiting if r.request.pool == pool] for pool in pools}
    yield _gauge(
        "gpudev_queue_oldest_seconds",
        "Age of the oldest request in the queue, in seconds; 0: none waits. Blocked requests do not count.",
        ("gpu_type",),
        [(pool, max(found, default=0) / SECOND) for pool, found in ages.items()],
    )
    yield _histogram(
        "gpudev_queue_wait_seconds",
        "Time from a request to its first start, in seconds.",
        ("gpu_type",),
        [(pool, metrics.waits[pool]) for pool in pools],
    )
    yield _histogram(
        "gpudev_start_seconds",
        "Time from the start of a server until it is ready, in seconds, failed attempts included.",
        ("gpu_type",),
        [(pool, metrics.starts[pool]) for pool in pools],
    )
    yield _counter(
        "gpudev_transitions_total",
        "Reservations that changed their state.",
        ("gpu_type", "before", "after"),
        [
            ((pool, before or "new", after), metrics.moves[pool, before, after])
            for pool in pools
            for before, after in _MOVES
        ],
    )
    yield _counter(
        "gpudev_ended_total",
        "Reservations that ended.",
        ("gpu_type", "outcome"),
        _each(metrics.ended, pools, Outcome),
    )


def _usage(usage: UsageSums) -> Iterator[Metric]:
    """Yield sums by pool and size; with a label for people there would be too many series."""
    if not usage.complete:
        return  # a counter must not start below its earlier value
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
            [(key, millis / SECOND) for key, millis in sorted(values.items())],
        )


def _access(view: View, sweep: Sweep) -> Iterator[Metric]:
    people = Counter(person.access for person in view.people.values())
    yield _gauge(
        "gpudev_people",
        "People who have logged in with GitHub, by access.",
        ("access",),
        [(access, people[access]) for access in Access],
    )
    yield _counter(
        "gpudev_access_checks_total",
        "Comparisons of everybody with GitHub.",
        ("result",),
        [("complete", sweep.sweeps), ("incomplete", sweep.failures)],
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
