"""Sentences: every one that is said has a template, and Python and the pages' script write the same words."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coreworld import NOON
from gpudev import wire
from gpudev_hub.core.sentences import TEMPLATES, Sentence, Text, because, joined, say
from gpudev_hub.core.words import moment, plain, printable
from gpudev_hub.web.present import data_of

PRODUCT = Path(__file__).parents[2] / "spawner/gpudev_hub"
SCRIPT = PRODUCT / "web/static/sentences.js"
NODE = Path(sys.executable).with_name("node")
QUOTED = "2026-11-23 10:15:30 worker {until} {}: no route\nto {0.__class__} <b>"


def names(template: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(template) if name is not None}


def calls() -> Iterator[tuple[set[str], set[str]]]:
    """(codes, names of values) of every call of `say` in the product."""
    for path in sorted((PRODUCT / "core").rglob("*.py")):
        tree = ast.parse(path.read_text())
        words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "say":
                first = node.args[0]
                known = {word for word in words if isinstance(word, str) and word in TEMPLATES}
                codes = {str(first.value)} if isinstance(first, ast.Constant) else known
                yield codes, {str(keyword.arg) for keyword in node.keywords}


def test_every_sentence_has_the_values_that_its_template_names() -> None:
    said: set[str] = {"text"}
    for codes, values in calls():
        fitting = {code for code in codes if names(TEMPLATES[code]) == values}
        assert fitting, (codes, values)
        said |= fitting
    assert said == set(TEMPLATES), "every template is used"


INSTANTS = ("at", "guaranteed", "since", "start", "until")
EXAMPLES: list[Text] = [
    *(
        say(
            code,
            **{name: NOON if name in INSTANTS else QUOTED for name in names(text)},
        )
        for code, text in TEMPLATES.items()
    ),
    joined(["a", say("until", until=NOON), QUOTED], "all"),
    joined([QUOTED, say("until", until=NOON)], "list"),
    joined(["a", "b", say("blocked", why=say("until", until=NOON))], "parts"),
    because(QUOTED, say("blocked", why=say("node_ends", node="node-1", until=NOON))),
    QUOTED,
]


def test_all_who_write_sentences_write_the_same_words() -> None:
    """The service in UTC, the client and pages from what is on the wire, and the pages' script."""
    found = [data_of(example) for example in EXAMPLES]
    data = msgspec.to_builtins(found)
    program = f"""
        const text = {json.dumps(SCRIPT.read_text())};
        const {{ told }} = await import("data:text/javascript," + encodeURIComponent(text));
        const when = (iso) => iso === "2026-11-23T12:00:00Z" ? "12:00 UTC" : "?";
        console.log(JSON.stringify({json.dumps(data)}.map((sentence) => told(sentence, when))));
    """
    done = subprocess.run(
        [NODE, "--input-type=module"], input=program, capture_output=True, text=True, check=True, timeout=60
    )
    words = [plain(example, NOON) for example in EXAMPLES]
    assert json.loads(done.stdout) == words
    assert [told(sentence) for sentence in found] == words
    assert plain(say("text", text=QUOTED), NOON) == printable(QUOTED), "what is quoted stays as it is"


def told(sentence: wire.Sentence | None) -> str:
    assert sentence is not None
    return wire.told(sentence, lambda at: moment(NOON, NOON) if at == "2026-11-23T12:00:00Z" else "?", str)


@given(st.text(), st.text())
def test_what_is_quoted_is_never_taken_apart(one: str, other: str) -> None:
    text = because(say("free_by", node=one, at=NOON, owners=""), say("text", text=other))
    assert plain(text, NOON) == f"{printable(one)} is free by 12:00 UTC: {printable(other)}"
    assert told(data_of(text)) == plain(text, NOON)


@pytest.mark.parametrize(
    ("code", "words"), [("all", "a, b and c"), ("list", "a, b, c"), ("parts", "a; b; c")]
)
def test_texts_are_joined(code: str, words: str) -> None:
    assert plain(joined(["a", "b", "c"], code), NOON) == words
    assert joined(["a"], code) == "a"
    assert isinstance(joined(["a", "b"], code), Sentence)
