"""Reads metrics in Prometheus' text format like Prometheus."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families


def families(text: str) -> dict[str, str]:
    """Return the kinds of all metrics by name, with or without a value. Counters end in ``_total``."""
    found = {}
    for family in text_string_to_metric_families(text):
        found[f"{family.name}_total" if family.type == "counter" else family.name] = family.type
    return found


def value(text: str, name: str, **labels: str) -> float:
    """Return the value of one sample. Raises ``KeyError`` if none has exactly these labels."""
    samples = {
        (sample.name, frozenset(sample.labels.items())): float(sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    return samples[name, frozenset(labels.items())]
