"""The picker: the form of the spawn page, rendered from the profile list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from gpudev.hours import read_hours
from gpudev_hub.core.gate import PickerAnswer, SizeNow
from gpudev_hub.core.model import HOUR, SECOND
from gpudev_hub.core.words import duration, moment, plain, sentence
from gpudev_hub.times import rfc3339

TEMPLATES = Path(__file__).parent / "templates"
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
)


def render_picker(
    profiles: Sequence[Mapping[str, Any]], answer: PickerAnswer | None, prefill: Mapping[str, str]
) -> str:
    """Return the fields of the form as escaped HTML.

    ``answer``: what is free; ``None`` if unknown. ``prefill``: options as texts, or fields of a form.
    """
    chosen = _chosen(profiles, prefill)
    known = {} if answer is None else {(size.gpu_type, size.gpus, size.nodes): size for size in answer.sizes}
    pools: dict[str, list[dict[str, Any]]] = {}
    for profile in profiles:
        shape = profile["gpudev"]
        pool = shape["gpu_type"]
        size = known.get((pool, shape["gpus"], shape["nodes"]))
        free, tone, start = _words(size, answer)
        longest_now = None if size is None else size.longest_now
        card = {
            **profile,
            **shape,
            "checked": profile["slug"] == chosen,
            "free": free,
            "tone": tone,
            # RFC 3339, if it would not start at once: scripts show it in the reader's time zone.
            "start": start,
            "unused": 0 if size is None else size.free_now,
            # The longest hold with which it could start at once, if that is shorter than the chosen one.
            "seconds": None if longest_now is None else longest_now // SECOND,
        }
        pools.setdefault(pool, []).append(card)
    choices = profiles[0]["profile_options"]["hours"]["choices"]
    offered = [float(key) for key in choices]
    default = next(float(key) for key, choice in choices.items() if choice["default"])
    longest = max(offered) if answer is None or answer.longest is None else answer.longest / HOUR
    return _ENVIRONMENT.get_template("picker.html").render(
        pools=pools,
        image=prefill.get("image", ""),
        presets=[f"{hours:g}" for hours in offered if hours <= longest],
        longest=f"{longest:g}",
        hours=prefill.get("hours") or f"{min(default, longest):g}",
        refused=sentence(answer.refused) if answer is not None else "",
        name=prefill.get("name", ""),
        limits=() if answer is None else answer.limits,
    )


def readable_hours(text: str) -> float | None:
    """Return the hours in a text; ``None`` if availability cannot be asked for them."""
    hours = read_hours(text)
    return hours if hours is not None and 0 < hours <= 24 * 365 else None


def _chosen(profiles: Sequence[Mapping[str, Any]], prefill: Mapping[str, str]) -> str:
    """Return the slug of the size that is selected first."""
    slugs = [profile["slug"] for profile in profiles]
    if prefill.get("profile") in slugs:
        return prefill["profile"]
    gpus, nodes = prefill.get("gpus", ""), prefill.get("nodes") or "1"
    for profile in profiles:
        shape = profile["gpudev"]
        wanted = (gpus, nodes, prefill.get("gpu_type") or shape["gpu_type"])
        if (str(shape["gpus"]), str(shape["nodes"]), shape["gpu_type"]) == wanted:
            return str(profile["slug"])
    return next((str(p["slug"]) for p in profiles if p.get("default")), str(slugs[0]))


def _words(size: SizeNow | None, answer: PickerAnswer | None) -> tuple[str, str, str | None]:
    """Return (words, tone, start) for the last line of a card."""
    if size is None or answer is None:
        return "", "", None
    if size.starts_now:
        return f"{size.free_now} free now", "good", None
    sooner = ""
    if size.longest_now is not None:
        # The line may break before the length of time, but not inside it.
        length = duration(size.longest_now).replace(" ", "\N{NO-BREAK SPACE}")
        sooner = f", or now for up to {length}"
    if size.earliest is None:
        reason = plain(size.reason, answer.now)
        reason = reason.removesuffix(".") + sooner if sooner else reason
        return reason, "refused" if size.refused else "bad", None
    free = f"{size.free_now} free now; yours starts " if size.free_now else ""
    return f"{free}about {moment(size.earliest, answer.now)}{sooner}", "wait", rfc3339(size.earliest)
