"""What is decided when JupyterLab ends: another start, without its user's files where they are at fault."""

from __future__ import annotations

import os
from ast import literal_eval
from dataclasses import replace
from pathlib import Path

import pytest

from gpudev_hub.server.lab import PATIENCE, Ending, Lab, blamed, command, complaint, environment
from gpudev_hub.server.record import Exit

ASKED = "[I 2026-11-29 05:00:05.982 ServerApp] Shutting down on /api/shutdown request."
BAD = (
    "[I 2026-11-29 04:59:45.801 ServerApp] jupyterlab | extension was successfully linked.\n"
    "[C 2026-11-29 04:59:45.917 ServerApp] Bad config encountered during initialization:"
    " No such directory: ''/nope''\n"
)
FAILED = Ending(1, BAD, answered=False, lived=2)
CRASHED = Ending(-9, "working\n", answered=True, lived=3600)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / ".jupyter" / "jupyter_server_config.py"
    file.parent.mkdir()
    file.write_text("c.ServerApp.root_dir = '/nope'\n")
    return file


@pytest.fixture
def lab(tmp_path: Path, config: Path) -> Lab:
    return Lab(tmp_path, {})


def test_asked_to_shut_down(lab: Lab) -> None:
    asked = Ending(0, ASKED, answered=True, lived=9)
    assert lab.ended(asked) == Exit(0, "JupyterLab was shut down from inside", by_user=True)


@pytest.mark.parametrize(
    "ending",
    [
        replace(CRASHED, code=0, said="No kernels for 60 seconds; shutting down"),
        replace(CRASHED, code=0, said="received signal 15, stopping"),
        CRASHED,
        replace(CRASHED, code=3),
        replace(FAILED, code=0, said=""),
        replace(FAILED, code=-9, said="", hung=True),
    ],
)
def test_nothing_else_of_the_users_ends_the_server(lab: Lab, ending: Ending) -> None:
    assert lab.ended(ending) is None
    assert lab.plain is not ending.answered


def test_without_the_configuration_that_ended_it_until_it_has_changed(lab: Lab, config: Path) -> None:
    assert lab.ended(FAILED) is None
    assert lab.plain
    assert lab.notice.startswith(
        "JupyterLab runs without your configuration: with ~/.jupyter/jupyter_server_config.py it ended with"
        " exit code 1: Bad config encountered during initialization: No such directory: ''/nope''."
    )
    assert lab.ended(CRASHED) is None
    assert (lab.plain, bool(lab.notice)) == (True, True), "the file is as it was"
    config.write_text("c.ServerApp.root_dir = '/home/dev'\n")
    assert lab.ended(CRASHED) is None
    assert (lab.plain, lab.notice) == (False, "")


def test_one_that_never_worked_even_without_the_files_ends_the_server(lab: Lab) -> None:
    """An image without JupyterLab is not the user's fault, and to go on would hold GPUs for nothing."""
    assert lab.ended(FAILED) is None
    assert lab.ended(replace(FAILED, said="ModuleNotFoundError: No module named 'x'")) == Exit(
        1, "JupyterLab ended with exit code 1: ModuleNotFoundError: No module named 'x'"
    )


def test_one_that_has_worked_is_started_again_for_ever(lab: Lab) -> None:
    """Its sessions go on; and what fails both ways says nothing against the files."""
    lab.ended(CRASHED)
    seen = []
    for _ in range(4):
        assert lab.ended(FAILED) is None
        seen.append(lab.plain)
    assert seen == [True, False, True, False]


def test_one_that_keeps_ending_after_it_answered_runs_without_the_files(lab: Lab) -> None:
    soon = replace(CRASHED, code=1, lived=5)
    lab.ended(soon)
    assert not lab.plain
    lab.ended(CRASHED)
    lab.ended(soon)
    assert not lab.plain
    lab.ended(soon)
    assert lab.plain


def test_a_hub_that_is_away_is_no_fault_of_the_files(lab: Lab) -> None:
    lab.ended(replace(FAILED, said="[E] Failed to connect to my Hub at http://127.0.0.1 (attempt 5/5)"))
    assert not lab.plain


def test_patience_is_for_configurations_only(lab: Lab, config: Path) -> None:
    assert lab.patience() == PATIENCE
    config.unlink()
    assert lab.patience() is None, "nothing could be left out at another start"
    config.touch()
    lab.ended(FAILED)
    assert lab.patience() is None


def test_files_at_fault(tmp_path: Path) -> None:
    server, other = tmp_path / "jupyter_server_config.py", tmp_path / "jupyter_config.json"
    server.write_text("c.ServerApp.root_dir = '/nope'\n")
    other.write_text(
        '{"ServerApp": {"kernel_spec_manager_class": "nb_conda_kernels.CondaKernelSpecManager"}}'
    )
    both = [server, other]
    assert blamed(both, BAD, tmp_path) == [server]
    spec = "[C 2026-11-29 04:59:54.405 ServerApp] Bad config: 'nb_conda_kernels.CondaKernelSpecManager'"
    assert blamed(both, spec, tmp_path) == [other]
    assert blamed(both, f'  File "{server}", line 1\nNameError: x', tmp_path) == [server]
    unwritable = tmp_path / ".jupyter" / "migrated"
    assert blamed(both, f"PermissionError: [Errno 13] Permission denied: '{unwritable}'", tmp_path) == [
        unwritable
    ]
    assert blamed(both, "Killed", tmp_path) == both
    assert blamed([tmp_path / "gone.py"], BAD, tmp_path) == [tmp_path / "gone.py"]


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (BAD, "Bad config encountered during initialization: No such directory: ''/nope''"),
        ("Traceback\n  x\nValueError: no\nbye\n", "ValueError: no"),
        ("jupyter_core.application.JupyterError: no\n", "jupyter_core.application.JupyterError: no"),
        ("a\n\x1b[31mlast\x1b[0m words\n\n", "[31mlast[0m words"),
        ("[I 2026-11-29 05:00:05.983 ServerApp] Shutting down 5 extensions\n", ""),
        ("Options --port and --sock are mutually exclusive. Aborting.", None),
        ("", ""),
    ],
)
def test_the_line_that_tells_why(said: str, line: str | None) -> None:
    assert complaint(said) == (said.rstrip(".") if line is None else line)


def test_jupyterlab_is_told_not_to_end_by_itself(tmp_path: Path) -> None:
    for plain in (None, tmp_path):
        assert "--ServerApp.shutdown_no_activity_timeout=0" in command(
            ["lab"], {"HOME": "/home/dev"}, 10, plain
        )


def test_what_is_left_out(tmp_path: Path) -> None:
    """Terminals have neither the folder of it nor the places of its files."""
    env = {"HOME": "/home/dev", "SHELL": "/bin/zsh", "JUPYTER_DATA_DIR": "/image"}
    there = env | {"GPUDEV_SERVER_FOLDER": "/private"}
    assert environment(env, Path("/private"), None) == there
    assert environment(env, Path("/private"), tmp_path) == there | {
        "JUPYTER_CONFIG_DIR": f"{tmp_path}/config",
        "JUPYTER_DATA_DIR": f"{tmp_path}/data",
    }
    with_it, without = (
        next(part for part in command(["lab"], env, 10, plain) if "shell_command" in part)
        for plain in (None, tmp_path)
    )
    assert literal_eval(with_it.partition("command=")[2]) == ["/bin/zsh", "-l"]
    assert literal_eval(without.partition("command=")[2]) == [
        "/usr/bin/env",
        "--unset=JUPYTER_CONFIG_DIR",
        "--chdir=/home/dev",
        "JUPYTER_DATA_DIR=/image",
        "/bin/zsh",
        "-l",
    ]
    assert "--ServerApp.root_dir=/home/dev" in command(["lab"], env, 10, tmp_path)


def test_files_that_cannot_be_read_are_looked_over(tmp_path: Path) -> None:
    (tmp_path / ".jupyter").symlink_to(tmp_path / "nowhere")
    (tmp_path / "jupyter_config.json").mkdir()
    os.mkfifo(tmp_path / "jupyter_config.py")
    assert Lab(tmp_path, {}).configuration() == []
