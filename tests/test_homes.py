"""Tests must not read or change files in the home of the account that runs them."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

import pytest


def test_processes_have_a_separate_home() -> None:
    shown = subprocess.run(["sh", "-c", "echo $HOME"], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == str(Path.home())
    assert Path.home().is_dir()
    assert str(Path.home()) != pwd.getpwuid(os.getuid()).pw_dir


@pytest.mark.parametrize(
    "command", [["ssh", "-V"], ["timeout", "9", "/usr/bin/ssh", "-V"], ["gpu-dev", "--help"]]
)
def test_no_user_program_starts_without_a_home(command: list[str]) -> None:
    environment = {"PATH": os.environ["PATH"]}
    with pytest.raises(AssertionError, match="would use the real home"):
        subprocess.run(command, env=environment, check=True)
    child = os.fork()
    if not child:
        os.execvpe(command[0], command, environment)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 127


def test_user_programs_start_with_a_home_and_others_without() -> None:
    environment = {"PATH": os.environ["PATH"]}
    subprocess.run(["true"], env=environment, check=True)
    subprocess.run(["ssh", "-V"], env={**environment, "HOME": str(Path.home())}, check=True)
    subprocess.run(["ssh", "-V"], check=True)
