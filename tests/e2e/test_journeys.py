"""What users come for, with everything real: hub, proxy, service, JupyterLab, sshd, ssh and gpu-dev."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pexpect
import pytest

from gpudev_hub.server import processes
from hub_users import wait_for
from people import GPU_DEV, People, Person
from sessions import hub_api, hub_asked, log_in, reserve_in_picker
from stack import Stack

pytestmark = [pytest.mark.integration, pytest.mark.timeout(420)]


@pytest.fixture(autouse=True)
def clean(stack: Stack) -> Iterator[None]:
    """Each test leaves the pool as it found it, or the next one could not tell its own faults."""
    yield
    operator = stack.user
    for record in stack.api("GET", "reservations?owner=all", None, operator)["reservations"]:
        for user in {record["owner"]}:
            stack.api("DELETE", f"reservations/{record['id']}", None, user)
            stack.wait_state(record["id"], "ended", user)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def test_a_third_user_waits_his_turn_and_does_nothing_for_it(stack: Stack, person: People) -> None:
    """Two users fill the pool, a third waits; the first releases, and the third is ready by himself."""
    alice, bob, carol = person("alice"), person("bob"), person("carol")
    filling = [
        alice.begin("reserve", "--gpus", "8", "--hours", "1", "--name", "all-of-one", "--json"),
        bob.begin("reserve", "--gpus", "8", "--hours", "2", "--name", "the-other", "--json"),
    ]
    ready = []
    for process in filling:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        ready.append(json.loads(out))
    assert [r["state"] for r in ready] == ["ready", "ready"]
    assert {r["allocation"][0]["node"] for r in ready} == {"node-1", "node-2"}

    waiting = carol.begin("reserve", "--gpus", "4", "--hours", "1", "--name", "mine", "--json")
    queued = wait_for("carol in the queue", lambda: _shown(carol, "mine"))
    assert queued["state"] == "queued"
    assert queued["position"] == 1
    assert queued["allocation"] == []
    # Alice's hour ends before bob's two: that is where carol is planned, and what she is promised.
    assert at(ready[0]["ends_at"]) <= at(queued["planned_start"]) <= at(ready[1]["ends_at"])
    assert queued["guaranteed_by"] == queued["planned_start"]
    assert re.fullmatch(
        r"waiting for 4 GPUs: node-[12] is free by (\d+ \w+ )?[0-2]\d:[0-5]\d UTC \(alice\)", queued["reason"]
    ), queued["reason"]
    assert waiting.poll() is None

    alice.run("cancel", "all-of-one", "--yes")
    out, err = waiting.communicate(timeout=120)
    assert waiting.returncode == 0, err
    mine = json.loads(out)
    assert mine["state"] == "ready"
    assert mine["allocation"][0]["node"] == ready[0]["allocation"][0]["node"]
    assert at(mine["starts_at"]) < at(queued["guaranteed_by"])
    # Progress went to the other stream, in plain lines.
    assert "waiting for 4 GPUs" in err
    assert carol.ssh("gpu-mine", "echo $CUDA_VISIBLE_DEVICES").stdout.strip() == _devices(mine)


def test_a_pair_behind_a_stream_of_small_ones_starts_by_its_promise(stack: Stack, person: People) -> None:
    """Small requests that come later fill gaps, but never keep the pair from both nodes."""
    small = [stack.reserve("alice", gpus=8, hours=1), stack.reserve("bob", gpus=4, hours=1)]
    small = [stack.wait_state(r["id"], "ready", r["owner"]) for r in small]
    carol = person("carol")
    carol.run("reserve", "--nodes", "2", "--hours", "1", "--name", "both", "--no-wait")
    promised = carol.json("show", "both")
    assert promised["state"] == "queued"
    for _ in range(3):
        late = stack.reserve("dave", gpus=1, hours=2)
        assert late["state"] == "queued", "it would hold up the pair"
        assert at(late["planned_start"]) >= at(promised["planned_start"])
    fits = stack.reserve("bob", gpus=2, hours=0.5)
    assert fits["state"] in ("starting", "ready"), "it is gone before the pair's turn"
    stack.wait_state(fits["id"], "ready", "bob")
    for record in [*small, fits]:
        again = carol.json("show", "both")
        assert again["guaranteed_by"] == promised["guaranteed_by"]
        assert at(again["planned_start"]) <= at(promised["planned_start"])
        stack.api("DELETE", f"reservations/{record['id']}", None, record["owner"])
        stack.wait_state(record["id"], "ended", record["owner"])
    pair = stack.wait_state(promised["id"], "ready", "carol")
    assert at(pair["starts_at"]) < at(promised["guaranteed_by"])
    assert {part["node"] for part in pair["allocation"]} == {"node-1", "node-2"}


def test_the_servers_of_a_pair_know_each_other(person: People) -> None:
    """Invariant 2, and the journey of ``mpirun --hostfile ~/hostfile`` with nothing edited."""
    dave = person("dave")
    dave.run("reserve", "--nodes", "2", "--hours", "1", "--name", "pair")
    show = "echo $NODE_RANK $NNODES $MASTER_ADDR $MASTER_PORT $CUDA_VISIBLE_DEVICES"
    first = dave.ssh("gpu-pair", show).stdout.split()
    names = [line.split()[0] for line in dave.ssh("gpu-pair", "cat ~/hostfile").stdout.splitlines()]
    assert len(names) == 2
    other = dave.ssh("gpu-pair", f"ssh {names[1]} '{show}'").stdout.split()
    assert (first[0], other[0]) == ("0", "1")
    assert first[1:] == other[1:]
    assert first[1] == "2"
    assert first[4] == "0,1,2,3,4,5,6,7"
    ranks = dave.ssh(
        "gpu-pair",
        "mpirun --hostfile ~/hostfile bash -c 'echo rank=$OMPI_COMM_WORLD_RANK node=$NODE_RANK'",
    ).stdout.split("\n")
    seen = sorted(line for line in ranks if line.startswith("rank="))
    assert len(seen) == 16
    assert {line.split("node=")[1] for line in seen} == {"0", "1"}
    dave.release("pair")
    assert "gpu-pair" not in _host_entries(dave)


def test_an_extension_that_breaks_a_promise_is_refused_with_the_longest(
    person: People,
) -> None:
    alice, bob, carol = person("alice"), person("bob"), person("carol")
    alice.run("reserve", "--gpus", "8", "--hours", "1", "--name", "one")
    bob.run("reserve", "--gpus", "8", "--hours", "3", "--name", "two", "--no-wait")
    carol.run("reserve", "--gpus", "8", "--hours", "1", "--name", "next", "--no-wait")
    dave = person("dave")
    dave.run("reserve", "--nodes", "2", "--hours", "1", "--name", "pair", "--no-wait")
    promise = dave.json("show", "pair")["guaranteed_by"]
    refused = alice.run("extend", "one", "--hours", "1", check=False)
    assert refused.returncode == 4
    assert "carol's queued request next is guaranteed to start by" in refused.stderr
    assert "No extension is possible now." in refused.stderr
    # Bob's two hours that are left become carol's room: dave is planned earlier, and promised what he was.
    bob.release("two")
    wait_for("carol's turn", lambda: _shown(carol, "next", "ready"))
    refused = carol.run("extend", "next", "--hours", "40", check=False)
    assert refused.returncode == 4
    granted = re.search(r"gpu-dev extend next --hours ([0-9.]+)", refused.stderr)
    assert granted is not None, refused.stderr
    before = carol.json("show", "next")
    carol.run("extend", "next", "--hours", granted[1])
    longer = carol.json("show", "next")
    assert at(longer["ends_at"]) > at(before["ends_at"])
    pair = dave.json("show", "pair")
    assert pair["guaranteed_by"] == promise
    assert at(longer["ends_at"]) <= at(pair["planned_start"]) <= at(promise)


def test_the_end_is_announced_in_the_terminal_and_leaves_nothing(stack: Stack, person: People) -> None:
    """Invariants 5 and 9, seen by somebody who sits in an SSH session."""
    alice = person("alice")
    # 48 s until the warning, because a busy machine needs many of them to open the session.
    alice.run("reserve", "--gpus", "1", "--hours", "0.03", "--name", "brief")
    record = alice.json("show", "brief")
    folder = next(stack.settings.servers.glob(f"{record['id']}-*"))
    server = json.loads((folder / "0" / "record.json").read_text())
    argv = alice.ssh_argv("-tt", "gpu-brief")
    shell = pexpect.spawn(argv[0], argv[1:], env=alice.environment, encoding="utf-8", timeout=60)
    try:
        shell.expect("gpu-dev extend brief")
        shell.expect(r"1 min")
        shell.expect(pexpect.EOF, timeout=120)
    finally:
        shell.close(force=True)
    ended = stack.wait_state(record["id"], "ended", "alice")
    assert ended["outcome"] == "expired"
    assert at(ended["ended_at"]) >= at(ended["ends_at"])
    assert (at(ended["ended_at"]) - at(record["ends_at"])).total_seconds() < 15
    assert processes.marked(record["id"]) == {}
    listening = subprocess.run(["ss", "-ltnH"], capture_output=True, text=True, check=True).stdout
    for port in (server["jupyter_port"], server["sshd_port"]):
        assert f":{port} " not in listening
    assert alice.ssh("gpu-brief", "true", check=False).returncode == 255
    assert "gpu-brief" not in _host_entries(alice)
    assert "expired" in alice.run("list", "--ended").stdout


def test_a_stop_in_the_hub_keeps_the_slots_for_a_while(stack: Stack, person: People) -> None:
    bob = person("bob")
    bob.run("reserve", "--gpus", "8", "--hours", "1", "--name", "kept")
    before = bob.json("show", "kept")
    with log_in(stack, "bob") as browser:
        hub_api(browser, "DELETE", f"/users/bob/servers/{before['id']}")
        stopped = wait_for("the stop", lambda: _server(bob, "kept", "stopped"))
        assert stopped["state"] in ("ready", "starting")
        assert stopped["allocation"] == before["allocation"]
        # He comes back: the same slots, the same end.
        stack.api("POST", f"reservations/{before['id']}/resume", None, "bob")
        again = stack.wait_state(before["id"], "ready", "bob")
        assert again["allocation"] == before["allocation"]
        assert again["ends_at"] == before["ends_at"]
        wait_for("its JupyterLab", lambda: stack.jupyter(again, "bob") == 200)
        hub_api(browser, "DELETE", f"/users/bob/servers/{before['id']}")
        wait_for("the second stop", lambda: _server(bob, "kept", "stopped"))
    # He does not: after the restart window the slots are free for others.
    ended = stack.wait_state(before["id"], "ended", "bob")
    assert ended["outcome"] == "released"


def test_a_server_that_is_deleted_in_the_hub_is_released_at_once(stack: Stack, person: People) -> None:
    """And one that waits is cancelled."""
    bob = person("bob")
    bob.run("reserve", "--gpus", "8", "--hours", "1", "--name", "first")
    first = bob.json("show", "first")
    with log_in(stack, "bob") as browser:
        waits = reserve_in_picker(browser, "waits", f"{first['gpu_type']}-2x8")
        assert stack.api("GET", f"reservations/{waits}", None, "bob")["state"] == "queued"
        for server, outcome in ((waits, "cancelled"), (first["id"], "released")):
            hub_api(browser, "DELETE", f"/users/bob/servers/{server}", {"remove": True})
            assert stack.wait_state(server, "ended", "bob", 20)["outcome"] == outcome
        listed = hub_api(browser, "GET", "/users/bob?include_stopped_servers").json()["servers"]
        assert not {waits, first["id"]} & set(listed)


@pytest.mark.parametrize("runs", [False, True], ids=["before it runs", "before it answers"])
def test_a_stop_while_it_starts_gives_the_start_up(stack: Stack, person: People, runs: bool) -> None:
    """As a stop of a running one: the slots stay his for a while, and nothing starts by itself."""
    bob = person("bob")
    with log_in(stack, "bob") as browser:
        record = stack.reserve("bob", gpus=8, hours=1, name="early")
        server = f"/users/bob/servers/{record['id']}"

        def pending() -> bool:
            servers = hub_api(browser, "GET", "/users/bob?include_stopped_servers").json()["servers"]
            return bool(servers.get(record["id"], {}).get("pending") == "spawn")

        if runs:
            wait_for("its processes", lambda: stack.server_processes(record["id"]))
        wait_for("the Hub's start", pending)
        hub_api(browser, "DELETE", server)
    stopped = wait_for("the stop", lambda: _server(bob, "early", "stopped"))
    assert (stopped["state"], stopped["starts_at"]) == ("starting", None)
    assert stopped["allocation"] == record["allocation"]
    assert "stopped" in stopped["reason"]
    assert stack.server_processes(record["id"]) == {}
    stack.api("POST", f"reservations/{record['id']}/resume", None, "bob")
    again = stack.wait_state(record["id"], "ready", "bob")
    assert again["allocation"] == record["allocation"]
    wait_for("its JupyterLab", lambda: stack.jupyter(again, "bob") == 200)


def test_a_reservation_of_the_picker_is_reached_by_ssh_at_the_first_try(stack: Stack, person: People) -> None:
    carol = person("carol")
    carol.run("ssh-config", "enable")
    with log_in(stack, "carol") as browser:
        minted = reserve_in_picker(browser, name="fresh")
    record = wait_for("the reservation", lambda: _shown(carol, "fresh", "ready"))
    assert minted == record["id"]
    # No gpu-dev command that writes host entries has run since: ssh itself finds it.
    carol.ssh_config.stat()
    entered = carol.ssh("gpu-fresh", "echo $CUDA_VISIBLE_DEVICES; hostname")
    assert entered.stdout.split()[0] == _devices(record)


def test_installed_packages_stay_in_a_server_and_files_in_the_home(
    stack: Stack, person: People, tmp_path: Path
) -> None:
    """A package of a user's own reaches neither the hub's environment, nor the checkout, nor another user."""
    package = tmp_path / "mine"
    package.mkdir()
    (package / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "b"\nbackend-path = ["."]\n'
        '[project]\nname = "gpudev-e2e-mine"\nversion = "1"\n'
    )
    (package / "b.py").write_text(
        "import zipfile\n"
        "def build_wheel(folder, settings=None, metadata=None):\n"
        "    name = 'gpudev_e2e_mine-1-py3-none-any.whl'\n"
        "    with zipfile.ZipFile(folder + '/' + name, 'w') as z:\n"
        "        z.writestr('gpudev_e2e_mine.py', 'x = 1')\n"
        "        i = 'gpudev_e2e_mine-1.dist-info/'\n"
        "        z.writestr(i + 'METADATA', 'Metadata-Version: 2.1\\nName: gpudev-e2e-mine\\nVersion: 1')\n"
        "        z.writestr(i + 'WHEEL', 'Wheel-Version: 1.0\\nGenerator: b\\nRoot-Is-Purelib: true\\n'\n"
        "                   'Tag: py3-none-any\\n')\n"
        "        z.writestr(i + 'RECORD', '')\n"
        "    return name\n"
    )
    alice, bob = person("alice"), person("bob")
    alice.run("reserve", "--gpus", "1", "--hours", "1", "--name", "first")
    bob.run("reserve", "--gpus", "1", "--hours", "1", "--name", "his", "--no-wait")
    install = f"python -m pip install --quiet --no-index --no-build-isolation {package}"
    alice.ssh("gpu-first", f"{install} && python -c 'import gpudev_e2e_mine' && echo kept > ~/file")
    hub = subprocess.run(
        [GPU_DEV.replace("gpu-dev", "python"), "-c", "import gpudev_e2e_mine"], capture_output=True
    )
    assert hub.returncode != 0
    stack.wait_state(bob.json("show", "his")["id"], "ready", "bob")
    assert bob.ssh("gpu-his", "python -c 'import gpudev_e2e_mine'", check=False).returncode != 0
    assert bob.ssh("gpu-his", "cat ~/file", check=False).returncode != 0
    alice.release("first")
    alice.run("reserve", "--gpus", "1", "--hours", "1", "--name", "second")
    again = alice.ssh(
        "gpu-second", "cat ~/file; python -c 'import gpudev_e2e_mine; print(gpudev_e2e_mine.x)'"
    )
    assert again.stdout.split() == ["kept", "1"]


def test_a_start_under_anothers_id_that_is_broken_off_stops_nobody(stack: Stack, person: People) -> None:
    """The Hub breaks it off and stops what it finds by that name: the gate says whose it is."""
    alice = person("alice")
    alice.run("reserve", "--gpus", "2", "--hours", "1", "--name", "hers")
    record = alice.json("show", "hers")
    before = set(stack.server_processes(record["id"]))
    with log_in(stack, "bob") as browser:
        server = f"/users/bob/servers/{record['id']}"
        for pause in (0.002, 0.005, 0.01, 0.02, 0.04):
            start = threading.Thread(target=hub_asked, args=(browser, "POST", server))
            start.start()
            time.sleep(pause)
            hub_asked(browser, "DELETE", server)
            start.join()
    after = alice.json("show", "hers")
    assert (after["state"], after["reason"]) == ("ready", record["reason"])
    assert before <= set(stack.server_processes(record["id"]))
    assert stack.jupyter(after, "alice") == 200


def test_others_see_who_waits_but_reach_nothing(stack: Stack, person: People) -> None:
    alice, bob = person("alice"), person("bob")
    alice.run("reserve", "--gpus", "2", "--hours", "1", "--name", "private")
    record = alice.json("show", "private")
    seen = stack.api("GET", f"reservations/{record['id']}", None, "bob")
    assert (seen["owner"], seen["url"], seen["ssh_command"], seen["vscode_url"]) == (
        "alice",
        None,
        None,
        None,
    )
    denied = bob.run("cancel", record["id"], "--yes", check=False)
    assert denied.returncode == 5
    assert bob.run("logs", record["id"], check=False).returncode in (3, 5)
    assert alice.json("show", "private")["state"] == "ready"
    # Alice's own door does not open for bob's key, nor her JupyterLab for his token.
    hosts = alice.home / ".ssh" / "gpudev"
    port = next(
        line.split()[1]
        for path in hosts.rglob("*")
        if path.is_file()
        for line in path.read_text(errors="replace").splitlines()
        if line.strip().startswith("Port ")
    )
    keys = list((stack.settings.state / "ssh" / "demo").rglob("*bob*"))
    assert keys, "bob has no key"
    key = keys[0] / "id_ed25519" if keys[0].is_dir() else keys[0]
    tried = subprocess.run(
        [
            "ssh",
            "-F",
            "none",
            "-p",
            port,
            "-i",
            str(key),
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "BatchMode=yes",
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            f"{stack.settings.account_shell()[0]}@127.0.0.1",
            "true",
        ],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert tried.returncode == 255
    assert "Permission denied" in tried.stderr
    assert stack.jupyter(record, "bob") in (302, 403, 404)


def _shown(who: Person, name: str, state: str | None = None) -> dict[str, Any] | None:
    done = who.run("show", name, "--json", check=False)
    if done.returncode != 0:
        return None
    record: dict[str, Any] = json.loads(done.stdout)
    return record if state is None or record["state"] == state else None


def _server(who: Person, name: str, server: str) -> dict[str, Any] | None:
    record = _shown(who, name)
    return record if record is not None and record["server"] == server else None


def _devices(record: dict[str, Any]) -> str:
    return ",".join(str(slot) for slot in record["allocation"][0]["slots"])


def _host_entries(who: Person) -> str:
    who.run("ssh-sync", check=False)
    return "\n".join(
        line
        for path in (who.home / ".ssh" / "gpudev").rglob("*")
        if path.is_file()
        for line in path.read_text(errors="replace").splitlines()
        if line.startswith("Host ")
    )
