"""What others wrote colours a terminal, and does nothing else to it."""

from __future__ import annotations

import json
import re
import unicodedata

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpudev import wire
from gpudev.cli.app import main
from gpudev.client import Client
from gpudev.foreign import coloured, plain
from live_service import LiveService

RED, RESET = "\x1b[31m", "\x1b[0m"
EVIL = {
    "a title": "\x1b]0;pwned\x07",
    "a title without an end": "\x1b]2;pwned",
    "a title with C1": "\x9d0;pwned\x9c",
    "a link": "\x1b]8;;http://evil.example\x1b\\",
    "the clipboard": "\x1b]52;c;cHduZWQ=\x07",
    "a device's control string": "\x1bP1$r0m\x1b\\",
    "clear screen": "\x1b[2J\x1b[H",
    "cursor up and erase": "\x1b[3A\x1b[K",
    "the same with C1": "\x9b2J",
    "alternate screen": "\x1b[?1049h",
    "report": "\x1b[6n\x1b[c",
    "hidden": "\x1b[8m",
    "hidden beside a colour": "\x1b[31;8m",
    "reset of the terminal": "\x1bc",
    "character set": "\x1b(0",
    "a lonely escape": "\x1b",
    "a cut sequence": "\x1b[3",
    "controls": "\x00\x07\x08\x0b\x0c\x0e\x7f\x80\x84\x8d",
    "right to left": "\u202e\u2066\u200f\u061c",
    "lines of another kind": "\u2028\u2029",
    "unseen letters": "\U000e0041",
}


@pytest.mark.parametrize("name", EVIL)
def test_nothing_but_the_text_is_left(name: str) -> None:
    assert plain(f"a{EVIL[name]}\nb") == "a b"
    assert coloured(f"a{EVIL[name]}\nb") == "a\nb"


@pytest.mark.parametrize(
    "colour",
    [
        "",
        "0",
        "1",
        "01;31",
        "38;5;208",
        "48;2;1;2;3",
        "38;5;8",
        "38:2::1:2:3",
        "1;38;5;8;44",
        "97",
        "4;58;5;9",
    ],
)
def test_colours_stay_in_logs(colour: str) -> None:
    text = f"\x1b[{colour}mred"
    assert coloured(text) == coloured(text + RESET) == text + RESET
    assert plain(text) == "red"


def test_a_line_that_is_written_over_is_shown() -> None:
    assert coloured("real\rfake\r\nnext\n") == "real\nfake\nnext\n"
    assert plain("real\r\nfake\tnext") == "real fake next"
    assert coloured("ünï ×\u00a0👩\u200d💻\n\ttab") == "ünï ×\u00a0👩\u200d💻\n\ttab"


@given(st.text(st.one_of(st.sampled_from("\x1b\x9b[]m;0318\x07\n\r"), st.characters())))
def test_whatever_is_written(text: str) -> None:
    left = re.sub(r"\x1b\[[0-9;:]*m", "", coloured(text))
    assert all(unicodedata.category(letter) != "Cc" or letter in "\n\t" for letter in left)
    assert coloured(coloured(text)) == coloured(text)
    assert all(unicodedata.category(letter) != "Cc" for letter in plain(text))


def test_the_commands_print_none_of_it(
    configured: LiveService, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it stands in an answer; the service that answers here is itself not to be trusted."""
    evil = "".join(EVIL.values())
    with Client(configured.url, configured.token) as client:
        box = client.reserve(2, name="demo", progress=False)
        texts = {"owner": f"bob{evil}", "reason": evil, "gpu_type": evil, "url": evil, "ssh_command": evil}
        configured.change(box.id, **texts, allocation=[wire.NodeSlots(node=evil, slots=[0])])
        logs = {f"jupyter{evil}": f"{RED}log{evil}\n", "sshd": evil}
        configured.say("GET", "/logs", wire.Logs(events=[f"event{evil}"], logs=logs))
        assert "\x1b" not in str(client.get(box.id).record)
        assert client.get(box.id).logs().logs["jupyter"] == f"{RED}log\n{RESET}"
    shown = ""
    for command in (["logs"], ["show"], ["list", "--all"], ["node", "list"], ["wait"], ["open"]):
        names = [] if command[0] in ("list", "node") else ["demo"]
        assert main([*command, *names]) == 0
        out, err = capfd.readouterr()
        shown += out + err
        if command != ["open"]:
            main([*command, *names, "--json"])
            out, err = capfd.readouterr()
            shown += out + err
    configured.refuse(409, "wrong_state", f"refused{evil}", evil)
    assert main(["cancel", "demo"]) == 4
    shown += "".join(capfd.readouterr())
    assert "event" in shown
    assert "refused" in shown
    assert "bob" in shown
    assert not re.findall(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\u2066]|pwned", shown)


def test_logs_keep_their_colours_on_a_terminal(configured: LiveService) -> None:
    log = f"{RED}error{RESET}: {EVIL['a title']}x\n"
    configured.say("GET", "/logs", wire.Logs(events=[], logs={"jupyter": log}))
    with Client(configured.url, configured.token) as client:
        logs = client.reserve(2, progress=False).logs()
    assert logs.logs["jupyter"] == f"{RED}error{RESET}: x\n{RESET}"
    assert json.loads(msgspec.json.encode(logs)) == msgspec.to_builtins(logs)
