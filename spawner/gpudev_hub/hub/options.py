"""What the picker offers, and how a submitted form becomes the options of a request.

The sizes are those that the service's policy allows; the service checks every request again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpudev.hours import EXAMPLES, read_hours
from gpudev_hub.core.model import HOUR
from gpudev_hub.core.policy import Policy
from gpudev_hub.core.request import sizes

from .gate import Told

HOURS = (1, 2, 4, 8, 12, 24)
FIELDS = ("gpus", "nodes", "hours", "gpu_type", "name", "image")
"""The options of ``POST reservations``."""


class InvalidOptions(Told):
    """The form is not valid; the Hub shows it again with the message."""

    reason = "invalid"


def profile_list(policy: Policy) -> list[dict[str, Any]]:
    """Return a profile for each size that a pool can hold; ``gpudev`` has the options of the size."""
    profiles: list[dict[str, Any]] = []
    for pool in policy.pools:
        shapes = [(count, 1) for count in sizes(pool)]
        shapes += [(pool.gpus_per_node, nodes) for nodes in range(2, pool.max_gang + 1)]
        for gpus, nodes in shapes:
            whole = gpus == pool.gpus_per_node
            plural = "" if gpus == 1 else "s"
            title = f"{nodes} × {gpus} GPUs" if nodes > 1 else f"{gpus} GPU{plural}"
            about = f"{nodes} whole nodes" if nodes > 1 else "a whole node" if whole else "part of a node"
            profiles.append(
                {
                    "slug": f"{pool.name}-{nodes}x{gpus}",
                    "display_name": title,
                    "description": about,
                    "gpudev_pool": pool.label or pool.name,
                    "default": not profiles,
                    "gpudev": {"gpus": gpus, "nodes": nodes, "gpu_type": pool.name},
                    "profile_options": _profile_options(policy, pool.images),
                }
            )
    return profiles


def _profile_options(policy: Policy, images: Sequence[str]) -> dict[str, Any]:
    longest = policy.allowances.hold_per_request / HOUR
    default = policy.default_hold / HOUR
    offered = sorted({*(hours for hours in HOURS if hours <= longest), default})
    return {
        "hours": {"choices": {f"{hours:g}": {"default": hours == default} for hours in offered}},
        "image": {"choices": {image: {} for image in images}},
    }


def options_from_form(
    form: Mapping[str, Sequence[str]], profiles: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the options of a submitted form, in which each field is a list.

    Fields have the names of the options, or those of KubeSpawner (``profile``,
    ``profile-option-SLUG--hours`` …). The service checks what depends on the pool. Raises ``InvalidOptions``.
    """

    def field(name: str) -> str | None:
        values = [value.strip() for value in form.get(name, ())]
        return values[-1] if values and values[-1] else None

    options: dict[str, Any] = dict.fromkeys(FIELDS)
    slug = field("profile")
    given = {name: field(name) for name in FIELDS}
    if slug is not None:
        profile = next((found for found in profiles if found["slug"] == slug), None)
        if profile is None:
            raise InvalidOptions(f"There is no size {slug!r}. Choose a size from the list.")
        options.update(profile["gpudev"])
        prefix = f"profile-option-{slug}--"
        for name in ("hours", "image"):
            unlisted = field(f"{prefix}{name}--unlisted-choice")
            given[name] = unlisted or field(prefix + name) or given[name]
    for name in ("gpus", "nodes"):
        if slug is None and (text := given[name]) is not None:
            if not text.isdecimal() or len(text) > 6:
                raise InvalidOptions(f"{name} is {text!r}; it must be a whole number.")
            options[name] = int(text)
    if (text := given["hours"]) is not None:
        options["hours"] = read_hours(text)
        if options["hours"] is None:
            raise InvalidOptions(f"The hours are {text!r}; use a length of time such as {EXAMPLES}.")
    for name in ("name", "image") if slug is not None else ("name", "image", "gpu_type"):
        options[name] = given[name]
    return options
