"""The help page and the client that it offers."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path

import pytest_asyncio

from gpudev_hub.settings import CHECKOUT
from gpudev_hub.web.client_wheel import client_wheel
from gpudev_hub.web.page_view import MEANINGS, OUTCOMES, STATES
from gpudev_hub.web.pages import pages
from web_site import Running, running


@pytest_asyncio.fixture
async def run() -> AsyncIterator[Running]:
    async with running(pages(), contact="#gpus <on> Slack") as run:
        run.hub.person("alices", "alice")
        yield run


async def test_help_needs_no_log_in_and_no_hub(run: Running) -> None:
    async with run.client() as stranger:
        answer = await stranger.get("help")
        assert answer.status_code == 200
        assert "#gpus &lt;on&gt; Slack" in answer.text
        assert (
            f"pip install http://127.0.0.1:8000/services/gpudev/client/{client_wheel().name}" in answer.text
        )
        assert "gpu-dev login --url http://127.0.0.1:8000\n" not in answer.text
        assert "Log out" not in answer.text
    async with run.client("alices") as client:
        assert "Log out" in (await client.get("help")).text
        await run.hub.down()
        assert (await client.get("help")).status_code == 200


async def test_the_client_is_offered_to_everybody(run: Running) -> None:
    wheel = client_wheel()
    address = f"client/{wheel.name}"
    async with run.client() as stranger:
        assert (await stranger.get(address)).content == wheel.content
        assert (await stranger.head(address)).headers["Content-Length"] == str(len(wheel.content))
        other = await stranger.get("client/gpudev-0.0.1-py3-none-any.whl")
        assert other.status_code == 404
        assert wheel.name in other.json()["error"]["message"]


def test_the_offered_client_installs_without_the_hub(tmp_path: Path) -> None:
    wheel = client_wheel()
    assert not any(
        name.startswith("gpudev_hub") for name in zipfile.ZipFile(BytesIO(wheel.content)).namelist()
    )
    file = tmp_path / wheel.name
    file.write_bytes(wheel.content)
    pip = [str(CHECKOUT / ".tools" / "bin" / "python"), "-m", "pip"]
    subprocess.run(
        [*pip, "install", "--quiet", "--no-deps", "--no-index", "--target", "here", file],
        cwd=tmp_path,
        check=True,
    )
    commands = [path.name for path in (tmp_path / "here" / "bin").iterdir()]
    assert commands == ["gpu-dev"]
    said = subprocess.run(
        [sys.executable, "here/bin/gpu-dev", "--version"],
        cwd=tmp_path,
        env={"PYTHONPATH": "here", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "gpu-dev" in said.stdout


def test_every_word_of_a_state_is_explained() -> None:
    said = {word: tone for word, tone, _ in MEANINGS}
    not_given_yet = {"idle"}
    words = [STATES[state] for state in STATES if state != "ended"]
    words += [(word, tone) for outcome, (word, tone) in OUTCOMES.items() if outcome not in not_given_yet]
    for word, tone in words:
        assert said[word] == tone
