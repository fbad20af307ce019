"""What the picker's cards say before any script has run."""

from __future__ import annotations

import re

import pytest

from gpudev_hub.core.gate import PickerAnswer, SizeNow
from gpudev_hub.core.model import HOUR, MINUTE, Millis
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
    refused = "99 h is longer than the 24 h that one request may ask for"
    html = render_picker(
        [PROFILE], PickerAnswer(NOON, (), longest=24 * HOUR, refused=refused), {"hours": "99"}
    )
    assert f'role="alert">{refused}.</p>' in html
    assert re.findall(r'class="g-free"[^>]*>([^<]*)<', html) == [""]


@pytest.mark.parametrize(
    ("free", "earliest", "longest", "said"),
    [
        (2, NOON, None, ">2 free now<"),
        (0, NOON + HOUR, None, ">about 13:00 UTC<"),
        (0, NOON + 2 * HOUR, 110 * MINUTE, ">about 14:00 UTC, or now for up to 1\xa0h\xa050\xa0min<"),
        (0, None, None, ">no node is up<"),
    ],
)
def test_a_card_says_what_is_free(
    free: int, earliest: Millis | None, longest: Millis | None, said: str
) -> None:
    answer = PickerAnswer(NOON, (SizeNow("h100", 8, 1, free, earliest, longest),))
    assert said in render_picker([PROFILE], answer, {})
