"""Texts for people that several parts use."""

from __future__ import annotations

import pytest

from gpudev_hub.core.words import without_options


@pytest.mark.parametrize(
    ("hint", "page"),
    [
        ("Use --gpus 4.", "Use 4 GPUs."),
        ("Use --gpus 8 --nodes 2, or leave --gpus out.", "Use 8 GPUs and 2 nodes, or leave GPUs out."),
        ("Use --hours 0.02 or more.", "Use 0.02 hours or more."),
        ("Use a longer time, for example --hours 1.", "Use a longer time, for example 1 hour."),
        ("Leave --nodes out to get one node.", "Leave nodes out to get one node."),
        ("Leave --gpu-type out to get h100.", "Leave the GPU type out to get h100."),
        ("Leave --image out to get default.", "Leave the image out to get default."),
        ("Use `gpu-dev extend demo --hours 1`.", "Use `gpu-dev extend demo --hours 1`."),
        ("Choose another name.", "Choose another name."),
    ],
)
def test_pages_have_no_options(hint: str, page: str) -> None:
    assert without_options(hint) == page
