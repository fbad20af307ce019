"""Lengths of time as people write them: one table for Python and the pages' script."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

import gpudev
from gpudev.cli.app import main
from gpudev.hours import EXAMPLES, read_hours
from live_service import LiveService
from spellings import SPELLINGS

SCRIPT = Path(__file__).parents[2] / "spawner/gpudev_hub/web/static/hours.js"
NODE = Path(sys.executable).with_name("node")


def test_every_spelling_in_python() -> None:
    read = {text: read_hours(text) for text in SPELLINGS}
    assert read == {
        text: hours if hours is None else pytest.approx(hours) for text, hours in SPELLINGS.items()
    }
    assert all(read_hours(text) for text in EXAMPLES.replace(" or ", ", ").split(", "))


def test_every_spelling_in_the_pages_script() -> None:
    """To the last bit what Python reads: the page and the service are to speak of the same instant."""
    program = f"""
        const text = {json.dumps(SCRIPT.read_text())};
        const {{ readHours }} = await import("data:text/javascript," + encodeURIComponent(text));
        console.log(JSON.stringify({json.dumps(list(SPELLINGS))}.map((text) => String(readHours(text)))));
    """
    done = subprocess.run(
        [NODE, "--input-type=module"], input=program, capture_output=True, text=True, check=True, timeout=60
    )
    read = dict(zip(SPELLINGS, map(float, json.loads(done.stdout)), strict=True))
    assert {text: None if math.isnan(hours) else hours for text, hours in read.items()} == {
        text: read_hours(text) for text in SPELLINGS
    }


def test_hours_in_every_command_that_takes_them(
    configured: LiveService, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def run(*args: str) -> str:
        assert main(list(args)) == 0, capfd.readouterr().err
        return capfd.readouterr().out

    assert json.loads(run("reserve", "-n", "demo", "--hours", "90m", "--json"))["hours"] == 1.5
    assert json.loads(run("extend", "demo", "-t", "0:30", "--json"))["hours"] == 2
    assert json.loads(run("avail", "--hours", "1h30", "--json"))["hours"] == 1.5
    assert run("avail", "--hours", "2d").startswith("For a reservation of 48 h:\n")
    assert run("avail").startswith("For a reservation of 4 h:\n")
    run("config", "set", "hours", "1,5 h")
    assert run("config", "get", "hours") == "1.5\n"
    assert json.loads(run("reserve", "--json"))["hours"] == 1.5
    content = json.loads((home / "config.json").read_text())
    (home / "config.json").write_text(json.dumps(content | {"hours": "45 min"}))
    assert json.loads(run("reserve", "--json"))["hours"] == 0.75
    assert main(["reserve", "--hours", "1:99"]) == 2
    assert f"'1:99' is not a length of time. Use a value such as {EXAMPLES}." in capfd.readouterr().err


def test_hours_in_the_library(configured: LiveService) -> None:
    with gpudev.reserve(hours="1:30", progress=False) as box:
        assert box.hours == 1.5
        assert box.extend("30m").hours == 2
    assert gpudev.availability("2d").hours == 48
    with pytest.raises(gpudev.InvalidHours, match="'soon' is not a length of time"):
        gpudev.availability("soon")
