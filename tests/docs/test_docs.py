"""Documentation fails the build when it no longer says what the code does."""

from __future__ import annotations

import json
import re
import runpy
import tomllib
from pathlib import Path

import click
import pytest

import access_table
import gpudev
from gpudev.cli.app import gpu_dev
from gpudev_hub import settings, supervisor
from gpudev_hub.core.errors import STATUS
from gpudev_hub.core.lifecycle import MOVES
from gpudev_hub.core.model import Outcome
from gpudev_hub.policyfile import PolicyFile, UserLimits, read_policy
from gpudev_hub.web import metrics
from gpudev_hub.web.app import PUBLIC
from plain_words import READERS, files
from reference import DOCS, PAGES, commands

ROOT = DOCS.parent
SOURCES = (ROOT / "gpudev_lib", ROOT / "spawner", ROOT / "hub-config")
MARKDOWN = [*sorted(DOCS.rglob("*.md")), *sorted(ROOT.glob("*.md"))]


def text_of(page: str) -> str:
    return (DOCS / page).read_text()


@pytest.mark.parametrize("page", PAGES)
def test_reference_pages_say_what_the_code_says(page: str) -> None:
    assert text_of(page) == PAGES[page](), "run: .venv/bin/python tools/reference.py"


def test_every_command_and_option_is_in_the_reference() -> None:
    page = text_of("reference-cli.md")
    for name, command in commands(gpu_dev):
        assert f"## gpu-dev {name}\n" in page
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert all(option in page for option in (*parameter.opts, *parameter.secondary_opts)), name


def test_every_exit_code_of_the_command_is_in_the_reference() -> None:
    said = set(re.findall(r"^\| (\d+) \|", text_of("reference-cli.md"), re.MULTILINE))
    errors = [getattr(gpudev, name) for name in gpudev.__all__]
    codes = {str(error.exit_code) for error in errors if hasattr(error, "exit_code")}
    assert said == codes | {"0", "130"}


def test_every_route_and_error_code_is_in_the_reference() -> None:
    page = text_of("reference-api.md")
    headings = set(re.findall(r"^### ([A-Z]+) `(.+)`$", page, re.MULTILINE))
    assert headings == {(route.method, route.path) for route in PUBLIC}
    rows = re.findall(r"^\| `(\w+)` \| (\d{3}) \| .+ \|$", page, re.MULTILINE)
    assert {code: int(status) for code, status in rows} == STATUS


def test_every_public_name_is_in_the_reference() -> None:
    page = text_of("reference-library.md")
    for name in gpudev.__all__:
        assert f"gpudev.{name}\n" in page or f"| `{name}` |" in page, name


def test_the_table_of_states_is_that_of_the_code() -> None:
    rows = "".join(
        f"| `{state}` | {', '.join(f'`{s}`' for s in sorted(after))}{' ' if after else ''}|\n"
        for state, after in MOVES.items()
    )
    head = "<!-- states: compared with core/lifecycle.py by tests/docs -->\n\n| from | to |\n|---|---|\n"
    assert f"{head}{rows}\n" in text_of("architecture.md")


def test_the_table_of_access_is_the_one_that_is_tested() -> None:
    page = text_of("access.md")
    assert f"tests/e2e/test_access.py tests cell by cell -->\n\n{access_table.cells()}\n" in page
    assert f"\n{access_table.reasons()}\n" in page


def test_the_outcomes_are_those_of_the_code() -> None:
    page = text_of("architecture.md")
    assert all(f"`{outcome}`" in page for outcome in Outcome)


def test_every_invariant_is_there_and_guarded_by_tests_that_name_it() -> None:
    rows = re.findall(r"^\| (\d+) \| .+ \| (.+) \|$", text_of("architecture.md"), re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 14))
    for number, guards in rows:
        named = re.compile(rf'[Ii]nvariants? ([\d, and]*\b)?{number}\b|^    """{number}"""', re.MULTILINE)
        for guard in re.findall(r"`(.+?)`", guards):
            assert named.search((ROOT / guard).read_text()), f"{guard} does not name invariant {number}"


def test_the_layers_are_those_that_the_linter_holds() -> None:
    rules = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(rule["layers"] for rule in rules if rule["type"] == "layers")
    assert f"`{' > '.join(layers).replace('gpudev_hub.', '')}`" in text_of("architecture.md")


def paths_in(text: str) -> list[str]:
    """Return the files and folders that a text names in code: `a/b.py`, `core/`."""
    return re.findall(r"`([\w.-]+/[\w./-]*)`", text)


@pytest.mark.parametrize(("page", "least"), [("docs/architecture.md", 60), ("CONTRIBUTING.md", 8)])
def test_files_that_are_named_exist(page: str, least: int) -> None:
    folders = (ROOT, ROOT / "spawner" / "gpudev_hub", ROOT / "gpudev_lib", ROOT / "gpudev_lib" / "gpudev")
    named = set(paths_in((ROOT / page).read_text()))
    assert len(named) > least
    assert not {name for name in named if not any((folder / name).exists() for folder in folders)}


def test_targets_that_are_named_exist() -> None:
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = re.findall(r"`make ([a-z-]+)`", (ROOT / "CONTRIBUTING.md").read_text())
    assert len(named) > 4
    assert set(named) <= known


@pytest.mark.parametrize(
    ("story", "most"), [("From the POST to ready", 30), ("The end of the time", 15), ("A pod is deleted", 12)]
)
def test_a_story_names_each_file_once_and_few_of_them(story: str, most: int) -> None:
    text = text_of("architecture.md").partition(f"### {story}\n")[2].partition("\n#")[0]
    steps = re.findall(r"^(\d+)\. `([\w/]+\.py)`", text, re.MULTILINE)
    assert [int(number) for number, _ in steps] == list(range(1, len(steps) + 1))
    assert 5 < len({file for _, file in steps}) == len(steps) <= most


def bastion_program() -> str:
    """Return the comment of the bastion's program that explains its settings."""
    text = (ROOT / "infra" / "images" / "bastion" / "bastion").read_text()
    assert "`infra/images/bastion/bastion`" in text_of("bastion.md")
    return text.partition("LC_ALL=C")[0]


def test_every_variable_of_ours_is_documented() -> None:
    sources = [path for folder in SOURCES for path in folder.rglob("*.py")]
    names = {name for path in sources for name in re.findall(r"\bGPUDEV_[A-Z_]+\b", path.read_text())}
    # Those of its own process are explained in its program, which bastion.md names.
    names -= set(re.findall(r"GPUDEV_BASTION_[A-Z_]+|GPUDEV_GATE", bastion_program()))
    assert {name for name in names if f"`{name}`" not in text_of("operating.md")} == set()
    assert set(re.findall(r'"(GPUDEV_[A-Z]+)"', Path(settings.__file__).read_text())) <= names


def test_every_exit_code_of_the_supervisor_is_documented() -> None:
    rows = re.findall(r"^\| (\d+) \| [^|]+ \| [^|]*\|$", text_of("operating.md"), re.MULTILINE)
    assert [int(code) for code in rows] == [int(ended) for ended in supervisor.Ended]


def test_the_policy_file_of_the_page_is_one(tmp_path: Path) -> None:
    example = re.search(r"```json\n(.*?)```", text_of("operating.md"), re.DOTALL)
    assert example is not None
    path = tmp_path / "policy.json"
    path.write_text(example[1])
    assert read_policy(path).limits.running_gpus == 8
    content = json.loads(example[1])
    assert set(content) == set(PolicyFile.__struct_fields__), "the example shows every field"
    assert set(content["limits"]) == set(UserLimits.__struct_fields__), "and every limit"


def test_every_metric_is_documented() -> None:
    source = Path(metrics.__file__).read_text()
    names = set(re.findall(r'"(gpudev_\w+)"', source))
    assert len(names) > 10
    assert {name for name in names if f"`{name}`" not in text_of("operating.md")} == set()


def test_the_messages_under_troubleshooting_are_those_of_the_code() -> None:
    table = text_of("operating.md").partition("## Troubleshooting")[2]
    quoted = [
        text
        for row in re.findall(r"^\| (.+?) \|", table, re.MULTILINE)
        for text in re.findall(r'"(.+?)"', row)
    ]
    assert len(quoted) > 5
    texts = [text for path in files(SOURCES) for _, text in READERS[path.suffix](path.read_text())]
    of_ssh = {"Could not resolve hostname", "Permission denied (publickey)", "PTY allocation request failed"}
    for message in set(quoted) - of_ssh:
        # Values in messages are numbers, names and what the page leaves out.
        pieces = re.split(r"…|\d+|service\.sqlite", message)
        found = [text for text in texts if all(piece.strip() in text for piece in pieces)]
        assert found, message


def anchors(page: Path) -> set[str]:
    """What GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", MARKDOWN, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]+))?\)", page.read_text()):
        if "://" in target:
            continue
        there = page.parent / target if target else page
        assert there.exists(), target
        if anchor:
            assert anchor in anchors(there), f"{target}#{anchor}"


def test_every_decision_record_is_listed_with_its_status_and_date() -> None:
    folder = DOCS / "decisions"
    rows = []
    for page in sorted(folder.glob("[0-9]*.md")):
        head = re.match(
            r"# (\d{4}): (.+)\n\n- Status: (Accepted|Superseded by .+)\n- Date: (\d{4}-\d\d-\d\d)\n\n",
            page.read_text(),
        )
        assert head, f"{page.name} must start with its title, status and date"
        assert page.name.startswith(f"{head[1]}-")
        rows.append(f"| [{head[1]}]({page.name}) | {head[2]} | {head[3]} | {head[4]} |")
    assert [int(row[3:7]) for row in rows] == list(range(1, len(rows) + 1))
    assert re.findall(r"^\| \[.+ \|$", text_of("decisions/README.md"), re.MULTILINE) == rows


def test_the_changelog_has_the_form_of_keep_a_changelog() -> None:
    """Versions, the kinds of change below them, and one line for each change."""
    kinds = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
    title, *versions = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert "https://keepachangelog.com/en/1.1.0/" in title
    assert versions[0].startswith("Unreleased\n")
    for version in versions:
        _, *sections = re.split(r"^### ", version, flags=re.MULTILINE)
        headings = [section.partition("\n")[0] for section in sections]
        assert headings == sorted(set(headings), key=kinds.index)
        for section in sections:
            for line in filter(None, section.splitlines()[1:]):
                assert line.startswith("- "), line
                assert line.endswith("."), line
                assert len(line) < 180, line


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    navigation: dict[str, list[str]] = runpy.run_path(str(DOCS / "conf.py"))["NAVIGATION"]
    listed = [
        page.resolve()
        for names in navigation.values()
        for name in names
        for page in sorted(DOCS.glob(f"{name}.md") if "*" in name else [DOCS / f"{name}.md"])
    ]
    assert sorted(listed) == sorted(
        {*MARKDOWN, ROOT / "infra" / "aws" / "README.md"} - {ROOT / "README.md"}
    ), "list each page once in NAVIGATION of docs/conf.py"
