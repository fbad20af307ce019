"""Documentation fails the build when it no longer says what the code does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from gpudev_hub import settings, supervisor
from gpudev_hub.core.lifecycle import MOVES
from gpudev_hub.policyfile import PolicyFile
from reference import DOCS, PAGES

ROOT = DOCS.parent


@pytest.mark.parametrize("page", PAGES)
def test_reference_pages_say_what_the_code_says(page: str) -> None:
    assert (DOCS / page).read_text() == PAGES[page](), "run: .venv/bin/python tests/support/reference.py"


def test_the_table_of_states_is_that_of_the_code() -> None:
    rows = "".join(
        f"| `{state}` | {', '.join(f'`{s}`' for s in sorted(after))}{' ' if after else ''}|\n"
        for state, after in MOVES.items()
    )
    assert rows in (DOCS / "architecture.md").read_text()


def test_every_setting_and_exit_code_is_documented() -> None:
    page = (DOCS / "operating.md").read_text()
    code = Path(settings.__file__).read_text()
    for name in set(re.findall(r'"(GPUDEV_[A-Z]+)"', code)):
        assert f"`{name}`" in page
    for ended in supervisor.Ended:
        assert re.search(rf"\b{ended.value} \w", page), ended


def test_the_policy_file_of_the_page_is_one() -> None:
    example = re.search(r"```json\n(.*?)```", (DOCS / "operating.md").read_text(), re.DOTALL)
    assert example is not None
    said = msgspec.json.decode(example[1].encode(), type=PolicyFile)
    assert set(json.loads(example[1])) == set(PolicyFile.__struct_fields__), "the example shows every field"
    assert said.limits.running_gpus == 8


@pytest.mark.parametrize(
    "page", [*sorted(DOCS.rglob("*.md")), ROOT / "README.md"], ids=lambda page: str(page.relative_to(ROOT))
)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target
