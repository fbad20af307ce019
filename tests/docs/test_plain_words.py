"""What people read has no turned phrases; what counts as one is in tests/support/plain_words.py."""

from __future__ import annotations

from pathlib import Path

import pytest

import plain_words
from plain_words import TURNS, Turn, files, findings, turns_in

ROOT = Path(__file__).parents[2]
READ = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "docs",
    "gpudev_lib",
    "hub-config",
    "spawner",
    "tools",
)
"""What people read: pages, help texts, messages."""
WRITTEN = [page for page in files([*sorted(ROOT.glob("*.md")), ROOT / "docs"]) if page.suffix == ".md"]


@pytest.mark.parametrize("name", READ)
def test_what_people_read_is_in_plain_words(name: str) -> None:
    found = [str(finding) for path in files([ROOT / name]) for finding in findings(path)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_sentences_on_pages_are_short(page: Path) -> None:
    found = [str(finding) for finding in findings(page, long=True)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("turn", TURNS, ids=lambda turn: turn.example)
def test_the_example_of_each_turn_is_found(turn: Turn) -> None:
    assert turn.reason in {reason for _, _, reason in turns_in(turn.example)}


@pytest.mark.parametrize(
    "text",
    [
        "There is no reservation called demo.",
        "If there is none, the command exits with 3.",
        "The node is no longer drained, and no more than 8 GPUs are free.",
        "The owner of the node's GPUs is alice.",
        "Owned by another user.",
        "The server runs on node-1.",
        "Granted only if everyone waiting still starts by their guaranteed time.",
        "Keep this page open: your server opens automatically.",
        "Requests to the Hub time out after 20 s.",
        "Delete only the pods that this call created.",
        "`reserve --wait` sets the exit status to that of `his.py`.",
    ],
)
def test_plain_sentences_are_not_found(text: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    assert findings(page) == []


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.md", "# A\n\nThe place is given\nup.\n\n```\nhis own\n```\n<!-- his -->\n[a](his.md) `his`\n", 3),
        ("a.html", '{# his #}<p class="his">\n{{ his }} {% if his %}\nnode of\n ours</p>', 3),
        ("b.html", '<p>\n<button title="{{ name }} is none"></button>', 2),
        ("a.svg", '<svg class="his">\n<text>node of\n ours</text>', 2),
        ("a.js", "// his a\n/* his a */\nconst his = `it is ${his} none`, b = 'is none, really';\n", 3),
        ("a.py", '"""His a."""\nhis = 1\nsaid = (\n    f"{his} is none: "\n    "x"\n)\n"""His b."""\n', 4),
        ("a.ipynb", '{"cells": [{"cell_type": "markdown", "source": ["A\\n", "breaks no promise"]}]}', 2),
        ("Makefile", "# his\nlock: a ## make the locks anew\n\tHis\n", 2),
    ],
)
def test_only_what_people_read_is_looked_at(name: str, content: str, line: int, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(content)
    assert [finding.line for finding in findings(path)] == [line]


def test_long_sentences_are_listed_on_request(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("Short.\n\n" + "word " * 13 + "\n" + "word " * 13 + "end. " + "word " * 24 + "\n")
    assert findings(page) == []
    assert [(finding.line, finding.reason) for finding in findings(page, long=True)] == [
        (3, "27 words in one sentence")
    ]


def test_the_command_prints_what_it_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text("All of his servers.\n")
    monkeypatch.setattr("sys.argv", ["plain_words.py", str(tmp_path)])
    assert plain_words.main() == 1
    assert capsys.readouterr().out == f"{page}:1: his: People are you, they or their.\n"
    page.write_text("All of their servers.\n")
    assert plain_words.main() == 0
