"""What the picker's cards say before any script has run."""

from __future__ import annotations

import re

import pytest

from gpudev_hub.core.gate import PickerAnswer, SizeNow
from gpudev_hub.core.model import HOUR, MINUTE, Millis
from gpudev_hub.core.sentences import Text, say
from gpudev_hub.hub.picker import render_picker

NOON = 20_000 * 24 * HOUR + 12 * HOUR
PROFILE = {
    "slug": "h100-1x8",
    "display_name": "8 GPUs",
    "description": "a whole node",
    "gpudev": {"gpu_type": "h100", "gpus": 8, "nodes": 1},
    "gpudev_pool": "8 × H100",
    "profile_options": {
        "hours": {"choices": {"4": {"default": True}}},
        "image": {"choices": {"default": {}}},
    },
}


def test_only_hours_that_may_be_asked_for_are_offered() -> None:
    """A person's limit may be lower, or higher, than everybody's."""
    profile = PROFILE | {
        "profile_options": {
            "hours": {"choices": {"1": {"default": False}, "4": {"default": True}, "24": {"default": False}}},
            "image": {"choices": {"default": {}}},
        }
    }
    presets = re.compile(r'class="g-chip" value="([^"]+)"')
    for longest, offered, chosen in (
        (3, ["1"], "3"),
        (24, ["1", "4", "24"], "4"),
        (30, ["1", "4", "24"], "4"),
    ):
        html = render_picker([profile], PickerAnswer(NOON, (), longest=longest * HOUR), {})
        assert presets.findall(html) == offered
        assert f'name="hours" required autocomplete="off" value="{chosen}"' in html
        assert f"Up to {longest} hours" in html
        assert f'max="{longest}"' in html


def test_hours_that_are_refused_have_no_plan() -> None:
    refused = "You asked for 99 h; your limit for one request is 24 h."
    html = render_picker(
        [PROFILE], PickerAnswer(NOON, (), longest=24 * HOUR, refused=refused), {"hours": "99"}
    )
    assert f'role="alert">{refused}</p>' in html
    assert re.findall(r'class="g-free"[^>]*>([^<]*)<', html) == [""]


def size(
    free: int,
    earliest: Millis | None,
    longest: Millis | None = None,
    *,
    starts_now: bool = False,
    reason: Text = "waiting for 8 GPUs",
    refused: bool = False,
) -> SizeNow:
    return SizeNow("h100", 8, 1, free, earliest, longest, starts_now, "" if starts_now else reason, refused)


@pytest.mark.parametrize(
    ("size", "said"),
    [
        (size(2, NOON, starts_now=True), ">2 free now<"),
        (size(0, NOON + HOUR), ">about 13:00 UTC<"),
        (
            size(0, NOON + 2 * HOUR, 110 * MINUTE),
            ">about 14:00 UTC, or now for up to 1\xa0h\xa050\xa0min<",
        ),
        (size(3, NOON + HOUR), ">3 free now; yours starts about 13:00 UTC<"),
        (
            size(0, None, reason=say("blocked", why=say("node_ends", node="node-1", until=NOON))),
            ">blocked: node-1 is available only until 12:00 UTC<",
        ),
        (size(3, None, reason="16 GPU-hours are too many.", refused=True), ">16 GPU-hours are too many.<"),
        (
            size(3, None, 60 * MINUTE, reason="9 are too many.", refused=True),
            ">9 are too many, or now for up to 1\xa0h<",
        ),
    ],
)
def test_a_card_says_what_would_become_of_a_request(size: SizeNow, said: str) -> None:
    assert said in render_picker([PROFILE], PickerAnswer(NOON, (size,)), {})
