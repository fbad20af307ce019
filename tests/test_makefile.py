"""What ``make`` takes from the environment that it is started in, and what it says when a step fails."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from gpudev_hub.settings import CHECKOUT


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run ``make`` as from a shell: without what a ``make`` around the tests has set."""
    outer = {"MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS", "NPM_CONFIG_REGISTRY"}
    env = {name: value for name, value in os.environ.items() if name not in outer}
    return subprocess.run(
        ["make", *arguments],
        cwd=CHECKOUT,
        env=env | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_start_files_of_the_users_shells_are_not_read(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("echo read >&2; : $no_such_variable\n")
    probe = "probe:; @bash -c 'env; sh -c env'"
    done = make("--eval", probe, "probe", BASH_ENV=str(broken), ENV=str(broken))
    assert (done.stderr, done.returncode) == ("", 0)
    assert str(broken) not in done.stdout


def test_a_registry_that_cannot_be_reached_is_named(tmp_path: Path) -> None:
    tools, registry = str(tmp_path / "tools"), "http://127.0.0.1:9/"
    # The environment of Python counts as made.
    done = make(
        f"TOOLS={tools}",
        *("-o", f"{tools}/venv.stamp", f"{tools}/node.stamp"),
        npm_config_registry=registry,
        npm_config_noproxy="127.0.0.1",
        npm_config_fetch_retries="0",
        npm_config_cache=str(tmp_path / "cache"),
    )
    assert done.returncode != 0
    assert registry in done.stderr


def test_a_failed_installation_leads_to_the_page_about_certificates(tmp_path: Path) -> None:
    tools = str(tmp_path / "tools")
    done = make(f"TOOLS={tools}", "PYTHON=false", "-o", f"{tools}/system.stamp", f"{tools}/uv.stamp")
    assert done.returncode == 2
    assert "setup: Installing uv failed." in done.stderr
    assert 'docs/quick-start.md, "Start the hub"' in done.stderr


def test_another_github_than_the_fake_one_is_no_setting_of_make() -> None:
    done = make("run", "GITHUB=real")
    assert done.returncode == 2
    assert "GITHUB is 'real'; the only value is fake" in done.stderr


def test_the_lock_file_of_checkov_keeps_its_parser(tmp_path: Path) -> None:
    compiler = tmp_path / "bin" / "uv"
    compiler.parent.mkdir()
    # It reads its input, because otherwise the `echo` before it may fail, and end the script.
    compiler.write_text(
        f'#!/bin/sh\necho "$*" >> {tmp_path}/asked\n'
        'case $* in *" - "*) cat >/dev/null; esac\ncase $* in *infra.txt) exit 1; esac\n'
    )
    compiler.chmod(0o755)
    assert make(f"TOOLS={tmp_path}", "-o", f"{tmp_path}/uv.stamp", "lock").returncode != 0
    asked = (tmp_path / "asked").read_text().splitlines()
    without = {line.split()[-1] for line in asked if "--no-emit-package lark" in line}
    assert "requirements/dev.txt" in without
    assert asked[-1].endswith("requirements/infra.txt")
    assert "requirements/infra.txt" not in without
    assert "\nlark==" in (CHECKOUT / "requirements" / "infra.txt").read_text()


def test_mutate_asks_for_a_module_and_its_tests() -> None:
    ready = ("-o", "setup", "-o", ".tools/mutation.stamp")
    nothing = make(*ready, "mutate")
    assert nothing.returncode == 2
    assert "name a module and the tests that guard it: MODULE TEST" in nothing.stderr
    missing = make(*ready, "mutate", "MODULE=spawner/nothing.py", "TESTS=tests/core")
    assert missing.returncode == 2
    assert "tools/mutate: spawner/nothing.py does not exist" in missing.stderr
