"""The commands: what they print, as JSON and for people, and how they exit."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fault_proxy import Fault
from gpudev import sshkeys
from gpudev.cli.app import COMMANDS, main
from gpudev.client import Client
from gpudev.errors import NotLoggedIn
from gpudev_hub.auth.check import Check
from gpudev_hub.core.model import CapacityBlock, NodeStatus
from gpudev_hub.core.views.doctor import Finding
from gpudev_hub.ssh.keys import PublicKey, RefusedKey
from live_service import OPERATE, POLICY, LiveService, live_service
from organisation import RULES, Organisation, github

KEYS = {
    *("id", "name", "owner", "state", "server", "gpus", "nodes", "total_gpus", "gpu_type", "position"),
    *("planned_start", "guaranteed_by", "likely_start", "reason", "starts_at", "ends_at", "url"),
    *("ssh_command", "vscode_url", "allocation"),
}

ELSEWHERE = PublicKey("ssh-ed25519", "QUFBQQ==")
"""A key of Alice's on another machine."""


class Run:
    """Runs commands and keeps what they wrote."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd
        self.out = self.err = ""

    def __call__(self, *args: str) -> int:
        self._capfd.readouterr()
        code = main(list(args))
        self.out, self.err = self._capfd.readouterr()
        return code

    def read(self) -> str:
        """What was written since the last command."""
        return self._capfd.readouterr().out

    def json(self, *args: str) -> Any:
        """The one JSON document that a command which succeeds prints."""
        assert self(*args, "--json") == 0, self.err
        return json.loads(self.out)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    return Run(capfd)


@pytest.fixture
def service(configured: LiveService) -> LiveService:
    return configured


def test_reserve_and_show_print_one_document(run: Run, service: LiveService) -> None:
    made = run.json("reserve", "--gpus", "2", "--hours", "1", "--name", "demo")
    assert "ready" in run.err
    assert made.keys() >= KEYS
    assert (made["state"], made["hours"], made["ssh_command"]) == ("ready", 1.0, "ssh gpu-demo")
    assert run.json("show", "demo") == made
    assert run.json("wait", "demo") == made


def test_reserve_for_people(run: Run, service: LiveService) -> None:
    assert run("reserve", "-g", "2", "-n", "demo") == 0
    assert "gpu-demo · 2 GPUs h100 (simulated): ready" in run.out
    for part in (service.only.url, "ssh gpu-demo", "vscode://"):
        assert part is not None
        assert part in run.out


def test_no_wait_returns_at_once_with_the_place(run: Run, service: LiveService) -> None:
    service.fill()
    assert run("reserve", "--no-wait", "-n", "demo") == 0
    assert "next in the queue" in run.out
    assert run.json("reserve", "--no-wait")["position"] == 2


@pytest.mark.parametrize(
    ("refusal", "code"),
    [
        ((400, "invalid_name", "no such name"), 2),
        ((404, "not_found", "nothing there"), 3),
        ((409, "quota_exceeded", "too much"), 4),
        ((401, "unauthenticated", "who?"), 5),
        ((403, "forbidden", "not yours"), 5),
    ],
)
def test_refusals_have_exit_codes_and_json(
    run: Run, service: LiveService, refusal: tuple[int, str, str], code: int
) -> None:
    service.refuse(*refusal)
    assert run("reserve", "--json") == code
    assert json.loads(run.out)["error"]["code"] == refusal[1]
    assert refusal[2] in run.err
    assert run("show", "x") == code
    assert run.out == ""


@pytest.mark.parametrize(
    ("typed", "told"),
    [("quotas", "No such command 'quotas'. Did you mean 'quota'?"), ("xyz", "No such command 'xyz'.")],
)
def test_a_mistyped_command_gets_a_suggestion(run: Run, typed: str, told: str) -> None:
    assert run(typed) == 2
    assert run.err.rstrip().endswith(f"Error: {told}")


def test_watching_needs_a_terminal(run: Run, service: LiveService) -> None:
    assert run("list", "--watch") == 2
    assert "--watch needs a terminal" in run.err
    assert run.out == ""


def test_a_pair_shows_the_way_to_each_node(run: Run, service: LiveService) -> None:
    assert run("reserve", "--gpus", "8", "--nodes", "2", "-n", "pair") == 0
    assert re.findall(r"^  (SSH.*?) +(ssh .*)$", run.out, re.MULTILINE) == [
        ("SSH", "ssh gpu-pair"),
        ("SSH rank 1", "ssh gpu-pair-1"),
    ]
    assert run("show", "pair") == 0
    assert re.search(r"^SSH +ssh gpu-pair *$", run.out, re.MULTILINE)
    assert re.search(r"^SSH rank 1 +ssh gpu-pair-1 *$", run.out, re.MULTILINE)
    for variable in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "NNODES"):
        assert variable in run.out
    run("cancel", "pair")
    run("reserve", "-n", "one")
    assert run("show", "one") == 0
    assert "SSH rank" not in run.out
    assert "MASTER_ADDR" not in run.out


def test_a_node_that_is_not_there_is_said(run: Run, service: LiveService) -> None:
    run("reserve", "--gpus", "8", "--nodes", "2", "-n", "pair")
    assert run("ssh", "pair-2") == 3
    assert "Reservation pair has 2 nodes, so there is no pair-2. The last node is pair-1." in run.err
    assert run("ssh", "other-1") == 3
    assert "no reservation 'other-1'" in run.err
    run("reserve", "-n", "single", "--no-wait")
    assert run("ssh", "single-1") == 3
    assert "Reservation single has only one node, so there is no single-1." in run.err
    here = service.run.cluster.running
    here["k1", 1] = replace(here["k1", 1], sshd={0: ("127.0.0.1", 2)})
    service.call(service.run.service.reconcile())
    assert run("ssh", "pair-1") == 4
    assert "Reservation pair has no server to connect to: it is ready." in run.err


@pytest.mark.parametrize("command", ["ssh", "open"])
def test_somebody_elses_server_is_his_to_enter(run: Run, service: LiveService, command: str) -> None:
    other = service.reserve_as("bob", name="demo")
    assert run(command, other) == 5
    assert "You cannot connect to reservation demo: it is owned by bob." in run.err


def test_ssh_config_enable_checks_what_ssh_makes_of_it(run: Run, service: LiveService, home: Path) -> None:
    (home / ".ssh").mkdir(mode=0o700)
    (home / ".ssh" / "config").write_text("Hots work\n")
    assert run("ssh-config", "enable") == 9
    assert "ssh refuses its configuration" in run.err
    assert "hots" in run.err
    assert run.out == ""


def test_ssh_check_shows_accepted_and_refused_keys(run: Run, service: LiveService, home: Path) -> None:
    (home / ".ssh").mkdir(mode=0o700)
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", home / ".ssh" / "id_ed25519"], check=True
    )
    here = sshkeys.fingerprint_of(home / ".ssh" / "id_ed25519")
    assert here is not None
    own = PublicKey(*(home / ".ssh" / "id_ed25519.pub").read_text().split()[:2])
    directory = service.run.directory
    directory.of["local:alice"] = [own, ELSEWHERE]
    directory.refused = [RefusedKey("ssh-rsa SHA256:w", "an RSA key of 1024 bits")]
    assert run("ssh", "--check") == 0
    assert run.out.splitlines() == [
        f"accepted: {here} ({home}/.ssh/id_ed25519)",
        f"accepted: {ELSEWHERE.fingerprint} (not on this machine)",
        "refused: ssh-rsa SHA256:w: an RSA key of 1024 bits",
    ]
    directory.of.clear()
    assert run("ssh", "--check") != 0
    assert "accepts none of your SSH keys" in run.err


def test_ssh_says_whether_the_key_of_a_demo_user_can_be_used(
    run: Run, service: LiveService, home: Path, tmp_path: Path
) -> None:
    """The hub made it, on its own machine: elsewhere there is nothing to log in with."""
    made = tmp_path / "state" / "id_ed25519"
    directory = service.run.directory
    directory.identity, directory.of["local:alice"] = made, [ELSEWHERE]
    away = f"Your only SSH key for this hub is {made} on the machine of the hub, and cannot be read here."
    assert run("ssh", "--check") == 1
    assert run.out == f"accepted: {ELSEWHERE.fingerprint} ({made} on the machine of the hub)\n"
    assert away in run.err
    made.parent.mkdir()
    made.touch()
    assert run("ssh", "--check") == 0
    directory.identity = Path("made\nup")
    assert run("ssh", "--check") == 1
    assert "invalid path of a key file" in run.err


def test_github_check_shows_each_fact_and_fails_with_one(
    run: Run, service: LiveService, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [Check("App", "gpudev [x]"), Check("clock", "900 s behind", "Set the clock.")]

    async def checked() -> list[Check]:
        return found

    service.run.site.github_check = checked
    service.configure(monkeypatch, service.operators)
    assert run("admin", "github-check") == 1
    assert run.out.splitlines() == [
        "ok      App: gpudev [x]",
        "FAILED  clock: 900 s behind",
        "        Set the clock.",
    ]
    assert run("admin", "github-check", "--json") == 1
    assert json.loads(run.out)["facts"][1]["todo"] == "Set the clock."
    found.pop()
    assert run("admin", "github-check") == 0


def test_doctor_shows_each_fact_and_fails_with_one(
    run: Run, service: LiveService, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [
        Finding("store", "database", "it answers"),
        Finding("clock", "clock", "2 min behind", "Set the clock."),
    ]

    async def looked() -> list[Finding]:
        return found

    service.run.site.doctor = looked
    service.configure(monkeypatch, service.operators)
    assert run("admin", "doctor") == 1
    assert run.out.splitlines() == [
        "ok      database: it answers",
        "FAILED  clock: 2 min behind",
        "        Set the clock.",
    ]
    assert run("admin", "doctor", "--json") == 1
    assert json.loads(run.out)["facts"][1]["id"] == "clock"
    found.pop()
    assert run("admin", "doctor") == 0


def test_brackets_in_a_reason_are_no_markup(run: Run, service: LiveService) -> None:
    run("reserve", "--no-wait", "-n", "demo")
    service.change("k1", reason="ended: oops [/x] [bold]")
    assert run("show", "demo") == 0
    assert "oops [/x] [bold]" in run.out


def test_sixteen_gpus_show_the_hint(run: Run, service: LiveService) -> None:
    assert run("reserve", "--gpus", "16") == 2
    assert "Use --gpus 8 --nodes 2" in run.err


@pytest.mark.parametrize(
    "args",
    [
        ("reserve", "--gpus", "two"),
        ("reserve", "--hours", "nan"),
        ("frobnicate",),
        ("extend", "demo"),
        ("config", "set", "colour", "red"),
        ("config", "set", "token", "secret"),
        ("config", "set", "hours", "-1"),
        ("config", "set", "url", "nonsense"),
        ("reserve", "--name", "\udcff"),
    ],
)
def test_bad_usage_exits_2(run: Run, service: LiveService, args: tuple[str, ...]) -> None:
    assert run(*args) == 2
    assert run.out == ""
    assert run.err
    assert not service.reservations


@pytest.mark.parametrize("args", [("reserve", "--gpus", "two"), ("list", "--watch")])
def test_bad_usage_with_json_is_json_too(run: Run, service: LiveService, args: tuple[str, ...]) -> None:
    assert run(*args, "--json") == 2
    assert json.loads(run.out)["error"]["code"] == "usage"


def test_a_timeout_exits_7_and_keeps_the_place(run: Run, service: LiveService) -> None:
    service.fill()
    assert run("reserve", "--timeout", "0.1", "--json") == 7
    assert json.loads(run.out)["error"]["code"] == "wait_timeout"
    assert service.only.state == "queued"


@pytest.mark.parametrize("timeout", ["nan", "-1"])
def test_a_timeout_that_is_none_reserves_nothing(run: Run, service: LiveService, timeout: str) -> None:
    assert run("reserve", "--timeout", timeout) == 2
    assert "which is not possible" in run.err
    assert not service.reservations


def test_one_that_fails_while_waited_for_exits_8(run: Run, service: LiveService) -> None:
    service.fill()
    assert run("reserve", "--no-wait", "-n", "demo") == 0
    service.change(service.only.id, state="ended", outcome="failed")
    assert run("wait", service.only.id) == 8


def test_a_hub_that_is_down_exits_6(run: Run, service: LiveService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Client.__init__.__kwdefaults__ or {}, "patience", 0.3)
    service.faults.append(Fault("503", method="GET", path="availability", times=99))
    assert run("avail", "--json") == 6
    assert json.loads(run.out)["error"]["code"] == "unavailable"


def test_a_broken_file_exits_9(run: Run, service: LiveService, home: Path) -> None:
    (home / "config.json").write_text("{")
    assert run("list") == 9
    assert "gpu-dev did not change it" in run.err
    assert (home / "config.json").read_text() == "{"


def test_list(run: Run, service: LiveService) -> None:
    assert run("list") == 0
    assert run.out == "You have no live reservations.\n"
    run("reserve", "-n", "mine")
    service.reserve_as("bob", 8, nodes=2)
    service.reserve_as("bob", 8, nodes=2, name="theirs")
    assert run("list") == 0
    assert "mine" in run.out
    assert "theirs" not in run.out
    assert run("list", "--all") == 0
    assert "bob" in run.out
    assert "place 2 in the queue" in run.out
    assert "waiting for 2 whole nodes: node-1 is free by 19:02 (bob), node-2 by 19:02 (bob)" in run.out
    assert [r["id"] for r in run.json("list", "--all")["reservations"]] == ["k1", "k2", "k3"]
    run("cancel", "mine")
    assert run("list", "--ended") == 0
    assert "released" in run.out


def test_a_cancelled_name_can_be_used_again_at_once(run: Run, service: LiveService) -> None:
    """Its server takes a while to stop: it is listed as past, and the name leads to the new one."""
    run("reserve", "-n", "demo")
    service.run.cluster.kept.add("k1")
    run("cancel", "demo")
    assert run("list", "--ended") == 0
    assert re.search(r"demo +k1 .*stopping", run.out), run.out
    assert run.json("reserve", "-n", "demo")["id"] == "k2"
    assert run.json("show", "demo")["id"] == "k2"
    assert run("reserve", "-n", "demo") == 4
    assert run("cancel", "demo") == 0
    assert (service.ended("k2").state, service.reservations["k1"].state) == ("ended", "stopping")


@pytest.mark.parametrize("width", [30, 50, 80, 120])
def test_tables_fit(run: Run, service: LiveService, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpudev.cli.output.WIDE", width)
    run("reserve", "-n", "a-name-of-thirty-characters-ok")
    run("reserve", "-g", "8", "--nodes", "2", "--no-wait")
    service.run.cluster.kept.add("k1")
    run("cancel", "k1")
    for command in ("list", "list --all", "list --ended", "avail", "show k1", "quota", "usage", "node list"):
        assert run(*command.split()) == 0
        assert max(map(len, run.out.splitlines())) <= width


def test_no_word_of_a_table_is_cut(run: Run, service: LiveService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpudev.cli.output.WIDE", 40)
    run("reserve", "-n", "demo", "-g", "2")
    assert run("quota") == 0
    assert run.out.splitlines()[0].strip() == "GPUs at once"
    assert "  type h100 · used 2 · of 1000 · left" in run.out
    assert run("usage") == 0
    assert re.match(r"2030-01-01 *\n  held 0.0 h · reserved 8.0 h", run.out)
    monkeypatch.setattr("gpudev.cli.output.WIDE", 30)
    assert run("node", "list") == 0
    assert run.out.startswith("node-1")
    assert "  state up · gpus 2 of 8 held" in run.out


def test_avail(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    limited = replace(POLICY, allowances=replace(POLICY.allowances, gpu_hours=40))
    with live_service(policy=limited) as service:
        service.configure(monkeypatch)
        service.reserve_as("bob", 8, hours=1.75)
        service.reserve_as("carol", 2, hours=1.75)
        service.reserve_as("dave", 8, nodes=2, hours=1)
        assert run("avail", "--hours", "2") == 0
        assert "NVIDIA H100 (simulated)" in run.out
        assert "6 of 16 GPUs free" in run.out
        assert "2 nodes × 8 GPUs" in run.out
        said = " ".join(run.out.split())
        assert "or now for up to 1 h 44 min waiting for 1 GPU: node-1 is free by 13:47 (dave)" in said
        assert run("avail", "--hours", "3") == 0
        assert (
            "refused: You asked for 48 GPU-hours, and your other reservations have 0: "
            "48 in total; your limit is 40"
        ) in " ".join(run.out.split())
        assert run("avail", "--hours", "100") == 0
        assert "your limit for one request is 24 h, or now for" in " ".join(run.out.split())
        first, second = service.run.cluster.node_list
        service.run.cluster.node_list = [first, replace(second, status=NodeStatus.DRAINED, reason="fan")]
        service.call(service.run.service.reconcile())
        assert run("avail", "--hours", "2") == 0
        assert "blocked: node-2 is drained (fan)" in run.out
        assert run.json("avail", "-t", "2")["hours"] == 2.0


def test_logs(run: Run, service: LiveService) -> None:
    run("reserve", "-n", "demo")
    assert run("logs", "demo") == 0
    assert run.out.splitlines()[:3] == [
        f"2030-01-01T11:00:00Z {event}"
        for event in ("queued: requested", "starting: admitted", "ready: ready")
    ]
    assert run.json("logs", "demo")["logs"]["jupyter"] == "serving\n"


def test_cancel_several_goes_on_after_a_failure(run: Run, service: LiveService) -> None:
    run("reserve", "-n", "one")
    run("reserve", "-n", "two")
    assert run("cancel", "one", "nobody", "two") == 3
    assert [service.ended(each).outcome for each in ("k1", "k2")] == ["released", "released"]
    assert "nobody" in run.err


def test_cancel_with_json(run: Run, service: LiveService) -> None:
    run("reserve", "-n", "one")
    assert run("cancel", "one", "nobody", "--json") == 3
    printed = json.loads(run.out)
    (record,), (error,) = printed["reservations"], printed["errors"]
    assert (error["code"], "'nobody'" in error["message"]) == ("not_found", True)
    assert (record["name"], record["state"], service.ended("k1").outcome) == ("one", "stopping", "released")


def test_the_name_of_ssh_will_do(run: Run, service: LiveService) -> None:
    run("reserve", "-n", "one")
    run("reserve", "-n", "gpu-gpu-two")
    run("reserve", "-n", "gpu-three")
    assert run.json("show", "gpu-one")["name"] == "one"
    assert run.json("show", "gpu-two")["name"] == "gpu-two"
    assert run.json("show", "gpu-gpu-two")["name"] == "gpu-two"
    for name in ("three", "gpu-three"):
        assert run.json("show", name)["name"] == "three"
        assert run("reserve", "-n", name) == 4
    assert run("show", "gpu-four") == 3


def test_cancel_names_what_it_found(run: Run, service: LiveService) -> None:
    run("reserve", "-n", "demo")
    service.run.cluster.kept.add("k1")
    run("cancel", "demo")
    assert run("cancel", "k1") == 0
    assert run.out == "demo is already stopping.\n"
    service.let_go("k1")
    service.ended("k1")
    assert run("cancel", "k1") == 0
    assert run.out == "demo has already ended.\n"
    service.fill()
    run("reserve", "-n", "later", "--no-wait")
    assert run("cancel", "later") == 0
    assert run.out == "later is cancelled.\n"


def test_release_is_a_word_for_cancel(run: Run, service: LiveService) -> None:
    run("reserve", "-n", "demo")
    assert run("release", "demo") == 0
    assert "demo is released" in run.out
    assert service.ended("k1").outcome == "released"


def test_extend(run: Run, service: LiveService) -> None:
    run("reserve", "-n", "demo", "-t", "1")
    assert run("extend", "demo", "--hours", "0.5") == 0
    assert "Total hold time: 1 h 30 min." in run.out
    assert run.json("extend", "demo", "--hours", "0.5")["hours"] == 2
    service.reserve_as("carol", 8, hours=3.5)
    service.reserve_as("bob", 8, nodes=2, name="both")
    assert run("extend", "demo", "--hours", "11") == 4
    assert "bob's queued request both is guaranteed to start by 14:30 UTC." in run.err
    assert "The longest extension now is 1 h 30 min.\nUse `gpu-dev extend demo --hours 1.5`." in run.err


def test_node_list_shows_who_holds_what(run: Run, service: LiveService) -> None:
    run("reserve", "-n", "demo", "-g", "2")
    run("reserve", "-g", "8", "--nodes", "2", "--no-wait")
    expected = {
        "name": "node-1",
        "gpu_type": "h100",
        "status": "up",
        "gpus": 8,
        "held": 2,
        "owners": ["alice"],
        "reason": None,
        "until": None,
    }
    other = expected | {"name": "node-2", "held": 0, "owners": []}
    assert run.json("node", "list") == {"nodes": [expected, other]}
    assert run("node", "list") == 0
    assert re.search(r"node-1 +up +2 of 8 held +alice +h100", run.out)
    assert not re.search("UNTIL|REASON", run.out)


def test_node_list_shows_why_a_node_is_drained_and_when_it_ends(run: Run, service: LiveService) -> None:
    reason = "AcceleratedHardwareReady is False: NvidiaXID79Error"
    ill, ends = service.run.cluster.node_list
    ill = replace(ill, status=NodeStatus.DRAINED, reason=reason)
    # 1 Jan 2090, 12:00 UTC.
    service.run.cluster.node_list = [ill, replace(ends, block=CapacityBlock("cr-1", 3_786_955_200_000))]
    service.call(service.run.service.reconcile())
    ill_found, ends_found = run.json("node", "list")["nodes"]
    assert (ill_found["reason"], ends_found["until"]) == (reason, "2090-01-01T11:20:00Z")
    assert run("node", "list") == 0
    assert re.search(r"UNTIL +REASON", run.out)
    assert "AcceleratedHardwareReady" in run.out


def test_operators_see_who_has_access_and_confirm_revocations(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ann is an operator; Ben is no longer in the team."""
    people = Organisation(operators={1})
    with live_service(github=github(people, replace(RULES, most_people=0, most_percent=0))) as service:
        for number, login, scopes in ((1, "ann", OPERATE), (2, "ben", OPERATE[:1])):
            people.join(number, login)
            service.call(service.run.service.access.people.login(number, login))
            service.run.hub.person(f"{login}s-token", login, scopes=scopes)
        service.configure(monkeypatch, "bens-token")
        assert run("admin", "access") == 5
        assert "this token of ben is not an operator token" in run.err
        service.configure(monkeypatch, "anns-token")
        people.team.remove(2)
        assert service.run.service.access.sweep is not None
        service.call(service.run.service.access.sweep.once())
        assert run("admin", "access") == 0
        assert re.search(r"ann +allowed +operator", run.out)
        assert re.search(r"ben +held", run.out)
        assert "1 person would lose access at once; at most 0 are revoked without an operator." in run.err
        confirmed = run.json("admin", "access", "--confirm-revocations", "--yes")
        assert [(p["login"], p["access"]) for p in confirmed["people"]] == [
            ("ann", "allowed"),
            ("ben", "revoked"),
        ]
        assert run("admin", "access", "--confirm-revocations") == 0
        assert "Nobody is listed as held. Nothing was changed." in run.out


@pytest.mark.parametrize(
    ("action", "status", "says"),
    [
        ("drain", "drained", "gets no new reservations"),
        ("undrain", "up", "no longer drained"),
        ("lost", "down", "node-1 is marked as lost"),
    ],
)
def test_operators_take_nodes_out(
    run: Run,
    service: LiveService,
    action: str,
    status: str,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run("node", action, "node-1") == 5
    assert "is not an operator token" in run.err
    assert "GPUDEV_TOKEN" in run.err
    service.configure(monkeypatch, service.operators)
    if action == "undrain":
        run("node", "drain", "node-1")
    assert service.run.service.view.nodes["node-1"].status != status
    assert run("node", action, "node-1") == 0
    assert says in run.out
    assert service.run.service.view.nodes["node-1"].status == status
    assert run("node", action, "node-9") == 3
    assert "Known nodes: node-1, node-2." in run.err


def test_operators_give_a_reason(run: Run, service: LiveService, monkeypatch: pytest.MonkeyPatch) -> None:
    run("reserve", "-n", "demo")
    service.configure(monkeypatch, service.operators)
    assert run("extend", "k1", "-t", "1", "--reason", "the demo runs late") == 0
    assert run("extend", "k1", "-t", "1") == 0
    assert run("cancel", "k1", "--yes", "--reason", "node-1 is repaired") == 0
    with Client() as client:
        told = [(item.cause, item.detail) for item in client.get("k1").history()]
    assert told[3:6] == [
        ("extended: the demo runs late", ""),
        ("extended", ""),
        ("operator: ended_by_operator", "node-1 is repaired"),
    ]


def test_open_prints_the_address(run: Run, service: LiveService, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"):
        monkeypatch.delenv(name, raising=False)
    run("reserve", "-n", "demo")
    assert run("open", "demo") == 0
    assert run.out == f"{service.only.url}\n"
    run("cancel", "demo")
    service.fill()
    run("reserve", "-n", "later", "--no-wait")
    for command in ("open", "ssh"):
        assert run(command, "later") == 4
        assert "queued.\nReason: waiting for 1 GPU: node-1 is free by 15:00 (bob).\n" in run.err
        assert "Wait for it with: gpu-dev wait later\n" in run.err
    service.change("k3", state="ready", server="stopped", url=None)
    assert run("ssh", "later") == 4
    assert "Reservation later has no server to connect to: its server is stopped." in run.err


def test_login_makes_a_token_with_just_these_scopes(
    run: Run, service: LiveService, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GPUDEV_TOKEN")
    monkeypatch.setattr(sys, "stdin", io.StringIO("opensesame\n"))
    (home / "config.json").write_text('{"github_user": "octo"}')
    assert run("login", "--user", "alice", "--password-stdin") == 0
    stored = json.loads((home / "config.json").read_text())
    token = [*service.run.hub.tokens][-1]
    assert stored.pop("token_created") < stored.pop("token_expires")
    assert stored == {"github_user": "octo", "url": service.url, "token": token, "user": "alice"}
    (made,) = service.run.hub.made
    assert made["scopes"] == [
        "access:services!service=gpudev",
        "custom:gpudev:reserve",
        "access:servers!user",
        "read:servers!user",
        "read:users:name!user",
    ]
    assert made["expires_in"] == 30 * 24 * 3600
    assert run("config", "get", "token") == 0
    assert run.out == token + "\n"
    assert run("config", "list") == 0
    assert token not in run.out
    assert "github_user = octo" in run.out


def test_a_token_in_the_environment_is_named_where_it_is_in_the_way(
    run: Run, service: LiveService, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUDEV_TOKEN", "stale")
    assert run("list") == 5
    assert "The token is from GPUDEV_TOKEN." in run.err
    monkeypatch.setattr(sys, "stdin", io.StringIO("opensesame\n"))
    assert run("login", "--user", "alice", "--password-stdin") == 0
    assert "GPUDEV_TOKEN is set, and is used instead of the saved token." in run.err
    assert run("list") == 5
    monkeypatch.delenv("GPUDEV_TOKEN")
    assert run("list") == 0


def test_a_token_in_an_argument_is_not_called_the_environments(
    service: LiveService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GPUDEV_TOKEN", "another")
    with Client(service.url, "stale") as client, pytest.raises(NotLoggedIn) as caught:
        client.reservations()
    assert "GPUDEV_TOKEN" not in str(caught.value)


def test_a_wrong_password_stores_nothing(
    run: Run, service: LiveService, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("guess\n"))
    assert run("login", "--user", "alice", "--password-stdin") == 5
    assert not (home / "config.json").exists()


def test_a_hub_without_passwords_says_where_tokens_are_made(
    run: Run, service: LiveService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.run.hub.password_form = False
    monkeypatch.setattr(sys, "stdin", io.StringIO("x\n"))
    assert run("login", "--password-stdin") == 5
    assert f"{service.url}/hub/token" in run.err


@pytest.mark.parametrize(("good", "code"), [(True, 0), (False, 5)])
def test_a_pasted_token_is_checked_before_it_is_stored(
    run: Run, service: LiveService, home: Path, monkeypatch: pytest.MonkeyPatch, good: bool, code: int
) -> None:
    monkeypatch.delenv("GPUDEV_TOKEN")
    monkeypatch.setattr(sys, "stdin", io.StringIO((service.token if good else "stale") + "\n"))
    assert run("login", "--token-stdin") == code
    assert (home / "config.json").exists() == good


def test_a_timeout_that_is_not_a_number_is_named(run: Run, service: LiveService) -> None:
    assert run("reserve", "--timeout", "soon") == 2
    assert "'soon' is not a number of seconds." in run.err
    assert run.json("list")["reservations"] == []


def test_config(run: Run, home: Path) -> None:
    assert run("config", "set", "hours", "2.5") == 0
    assert run("config", "set", "gpu_type", "a100") == 0
    assert run.json("config", "list") == {"hours": 2.5, "gpu_type": "a100"}
    assert run("config", "get", "hours") == 0
    assert run.out == "2.5\n"
    assert run("config", "set", "gpu_type", "") == 0
    assert run("config", "get", "gpu_type") == 1
    assert run.out == ""
    assert "gpu_type is not set in " in run.err
    assert "Set it with: gpu-dev config set gpu_type VALUE" in run.err
    assert run("config", "get", "token") == 1
    assert "Log in with: gpu-dev login" in run.err
    assert run("config", "get", "colour") == 2
    assert "gpu-dev has no setting 'colour'." in run.err
    (home / "config.json").write_text('{"colour": "red"}')
    assert run("config", "get", "colour") == 0


def test_a_token_is_not_sent_to_another_hub(
    run: Run, service: LiveService, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GPUDEV_TOKEN")
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{service.token}\n"))
    assert run("login", "--token-stdin") == 0
    assert run("config", "set", "url", service.url) == 0
    assert "token" in (home / "config.json").read_text(), "the same hub"
    assert run("config", "set", "url", "https://other.example") == 0
    assert f"The token for {service.url} was removed from this machine." in run.err
    assert run.err.endswith("Log in with: gpu-dev login\n")
    assert "token" not in (home / "config.json").read_text()


def test_an_empty_url_removes_the_token_too(
    run: Run, service: LiveService, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GPUDEV_TOKEN")
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{service.token}\n"))
    assert run("login", "--token-stdin") == 0
    assert run("config", "set", "url", "") == 0
    assert run.err.endswith("Log in with: gpu-dev login --url URL\n")
    monkeypatch.delenv("GPUDEV_URL")
    assert run("list") == 5
    assert f"No hub is configured in {home / 'config.json'}." in run.err


def test_the_library_and_the_command_take_as_many_gpus(run: Run, service: LiveService) -> None:
    """One, unless more are asked for."""
    with Client(service.url, service.token) as client:
        made = [client.reserve(wait=False), client.reserve(8, wait=False)]
    assert [box.gpus for box in made] == [1, 8]
    assert run.json("reserve")["gpus"] == 1


def test_defaults_of_the_file_are_used_and_overridden(run: Run, service: LiveService) -> None:
    run("config", "set", "hours", "2.5")
    assert run.json("reserve")["hours"] == 2.5
    assert run.json("reserve", "--hours", "1")["hours"] == 1.0


def test_completion_knows_commands_and_names(
    run: Run, service: LiveService, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("reserve", "-n", "demo")
    monkeypatch.setenv("_GPU_DEV_COMPLETE", "bash_complete")
    for words, index, expected in (
        ("gpu-dev ava", "1", "plain,avail"),
        ("gpu-dev show d", "2", "plain,demo"),
    ):
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", index)
        with pytest.raises(SystemExit):
            run()
        assert expected in run.read()


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(run: Run, command: str) -> None:
    assert run(command, "--help") == 0
    assert "Usage: gpu-dev" in run.out
