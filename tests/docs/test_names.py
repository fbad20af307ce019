"""The names of tests are short enough to be read in a report; each planted bug has a kind."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
LONGEST = 69
MUTANTS = TESTS / "mutants"


def test_names_of_tests_are_short() -> None:
    names = [
        name
        for path in TESTS.rglob("test_*.py")
        for name in re.findall(r"^ *(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE)
    ]
    assert len(names) > 1000
    assert [name for name in names if len(name) > LONGEST] == []


def test_every_planted_bug_stands_for_a_kind() -> None:
    """Invariants 11 and 12 are kept by the stores."""
    rows = re.findall(r"^\| (.+) \| ([\d, ]+) \| (.+) \|$", (MUTANTS / "README.md").read_text(), re.MULTILINE)
    listed = [name for _, _, patches in rows for name in re.findall(r"`(.+?)`", patches)]
    assert sorted(listed) == sorted(path.stem for path in MUTANTS.glob("*.patch"))
    guarded = {int(number) for _, numbers, _ in rows for number in numbers.split(", ")}
    assert guarded == set(range(1, 14)) - {11, 12}
