"""The lines for the server mean the same in every login shell."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from gpudev import remote

WORDS = [
    "x!y",
    "!",
    "!!",
    "^a^b",
    r"a\\b",
    "a\\",
    "\\'",
    "two\nlines\n",
    "$HOME `id` \"'",
    "é 1%",
    "",
    "-n",
    "*",
]


@pytest.mark.parametrize("shell", ["sh", "bash", "zsh", "fish", "csh", "tcsh"])
def test_words_arrive_as_they_are(shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run(
        [shell, "-c", remote.line(["printf", "[%s]", *WORDS])],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("".join(f"[{word}]" for word in WORDS), "")


@pytest.mark.parametrize("words", [["printf", *WORDS], ["sh", "-c", remote._ENDER, "sh", "mark"]])
def test_no_line_holds_what_csh_takes_for_something_else(words: list[str]) -> None:
    """csh ends quotes at a newline, and reads ``!`` between quotes as a name from its history."""
    line = remote.line(words)
    assert not {"!", "\n"} & set(line)


def test_the_shell_of_a_command_line_is_left_alone() -> None:
    assert remote.line("echo !$ \n") == "echo !$ \n"
    assert remote.line(["echo", "a b"]) == "echo 'a b'"
