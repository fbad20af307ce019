"""Metrics in Prometheus' text format, read as Prometheus reads them."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families


def families(text: str) -> dict[str, str]:
    """Kinds of all metrics by name, those without a value too; a counter's name ends in ``_total``."""
    found = {}
    for family in text_string_to_metric_families(text):
        found[f"{family.name}_total" if family.type == "counter" else family.name] = family.type
    return found


def value(text: str, name: str, **labels: str) -> float:
    """The value of one sample. KeyError if there is none with exactly these labels."""
    samples = {
        (sample.name, frozenset(sample.labels.items())): float(sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    return samples[name, frozenset(labels.items())]
