"""Prometheus' text format, version 0.0.4."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from gpudev_hub.service.metrics import Histogram

MEDIA = "text/plain; version=0.0.4; charset=utf-8"


def histograms(name: str, help: str, found: Iterable[tuple[Mapping[str, str], Histogram]]) -> Iterator[str]:
    """Return the lines of histograms of one name, each with its labels."""
    yield from _heading(name, "histogram", help)
    for labels, histogram in found:
        total = 0
        for bound, count in zip((*map(repr, histogram.bounds), "+Inf"), histogram.counts, strict=True):
            total += count
            yield _sample(f"{name}_bucket", {**labels, "le": bound}, total)
        yield _sample(f"{name}_sum", labels, histogram.seconds)
        yield _sample(f"{name}_count", labels, total)


def metric(
    name: str, kind: str, help: str, samples: Iterable[tuple[Mapping[str, str], float]]
) -> Iterator[str]:
    """Return the lines of one metric: a value for each set of labels. ``kind``: ``counter`` or ``gauge``."""
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
