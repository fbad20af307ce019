"""Everything that is counted, in Prometheus' text format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from gpudev_hub.core.model import ClaimState, NodeStatus, Policy, State
from gpudev_hub.service.metrics import BUCKETS, Histogram, Metrics
from gpudev_hub.service.view import View


class RequestMetrics:
    """Requests by route, method and status, with their durations."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        self.seconds: dict[str, Histogram] = {}

    def saw(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        self.requests[route, method, status] += 1
        self.seconds.setdefault(route, Histogram()).saw(seconds)


def exposition(requests: RequestMetrics, service: Metrics, view: View, policy: Policy) -> str:
    """The whole text."""
    return "\n".join([*_requests(requests), *_service(service), *_state(view, policy), ""])


def _requests(metrics: RequestMetrics) -> Iterator[str]:
    yield from _metric(
        "gpudev_http_requests_total",
        "counter",
        "Requests answered.",
        (
            ({"route": route, "method": method, "status": str(status)}, count)
            for (route, method, status), count in sorted(metrics.requests.items())
        ),
    )
    yield from _histograms(
        "gpudev_http_request_seconds",
        "Time to answer a request, long polls included.",
        [({"route": route}, histogram) for route, histogram in sorted(metrics.seconds.items())],
    )


def _service(metrics: Metrics) -> Iterator[str]:
    yield from _metric(
        "gpudev_events_total",
        "counter",
        "Events decided.",
        (({"event": event}, count) for event, count in sorted(metrics.events.items())),
    )
    yield from _metric(
        "gpudev_refusals_total",
        "counter",
        "Requests refused.",
        (({"code": code}, count) for code, count in sorted(metrics.refused.items())),
    )
    yield from _metric(
        "gpudev_effects_total",
        "counter",
        "Calls made to Hub and cluster.",
        (
            ({"effect": effect, "result": result}, count)
            for (effect, result), count in sorted(metrics.effects.items())
        ),
    )
    yield from _histograms("gpudev_commit_seconds", "Time of a commit.", [({}, metrics.commits)])
    yield from _histograms(
        "gpudev_decision_seconds", "From an event's arrival to its commit.", [({}, metrics.answers)]
    )
    for name, meaning, value in (
        ("gpudev_rebuilds_total", "Times the state in memory was read again.", metrics.rebuilds),
        ("gpudev_reconciliations_total", "Full passes over nodes and servers.", metrics.reconciled),
        ("gpudev_orphans_removed_total", "Servers removed that belonged to nobody.", metrics.orphans),
    ):
        yield from _metric(name, "counter", meaning, [({}, value)])


def _state(view: View, policy: Policy) -> Iterator[str]:
    reservations = Counter((r.request.pool, r.state) for r in view.reservations.values())
    yield from _metric(
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
    yield from _metric(
        "gpudev_nodes",
        "gauge",
        "Nodes by what is known of them.",
        (
            ({"gpu_type": pool.name, "status": status}, nodes[pool.name, status])
            for pool in policy.pools
            for status in NodeStatus
        ),
    )
    totals: Counter[str] = Counter()
    for node in view.nodes.values():
        totals[node.pool] += node.gpus
    yield from _metric(
        "gpudev_gpus",
        "gauge",
        "GPUs of all nodes.",
        (({"gpu_type": p.name}, totals[p.name]) for p in policy.pools),
    )
    taken: Counter[tuple[str, ClaimState]] = Counter()
    for claim in view.claims.values():
        taken[claim.pool, claim.state] += sum(len(part.slots) for part in claim.allocation)
    yield from _metric(
        "gpudev_gpus_claimed",
        "gauge",
        "GPUs with an owner.",
        (
            ({"gpu_type": pool.name, "claim": state}, taken[pool.name, state])
            for pool in policy.pools
            for state in ClaimState
        ),
    )


def _histograms(
    name: str, help: str, histograms: Iterable[tuple[dict[str, str], Histogram]]
) -> Iterator[str]:
    yield from _heading(name, "histogram", help)
    for labels, histogram in histograms:
        total = 0
        for bound, count in zip((*map(repr, BUCKETS), "+Inf"), histogram.counts, strict=True):
            total += count
            yield _sample(f"{name}_bucket", {**labels, "le": bound}, total)
        yield _sample(f"{name}_sum", labels, histogram.seconds)
        yield _sample(f"{name}_count", labels, total)


def _metric(
    name: str, kind: str, help: str, samples: Iterable[tuple[Mapping[str, str], float]]
) -> Iterator[str]:
    yield from _heading(name, kind, help)
    for labels, value in samples:
        yield _sample(name, labels, value)


def _heading(name: str, kind: str, help: str) -> Iterator[str]:
    yield f"# HELP {name} {help}"
    yield f"# TYPE {name} {kind}"


def _sample(name: str, labels: Mapping[str, str], value: float) -> str:
    if not labels:
        return f"{name} {value}"
    inside = ",".join(f'{key}="{_escape(text)}"' for key, text in labels.items())
    return f"{name}{{{inside}}} {value}"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
