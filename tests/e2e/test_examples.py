"""The examples in a home: run on each node, on the server's own kernel, with nothing given to them."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import pytest

from gpudev_hub.cluster.gpus import find_real
from people import People, Person
from stack import Stack

pytestmark = [
    pytest.mark.integration,
    pytest.mark.timeout(420),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

NOTEBOOK = "gpu-dev-examples/first-steps.ipynb"
EXECUTE = f"jupyter nbconvert --to notebook --execute --stdout {NOTEBOOK}"


def execute(person: Person, host: str) -> dict[str, Any]:
    """Outputs of the notebook's cells, by the names of the cells; none is an error."""
    done = person.ssh(host, EXECUTE, timeout=180)
    notebook = nbformat.reads(done.stdout, as_version=4)  # type: ignore[no-untyped-call]
    return {cell.id: cell.outputs for cell in notebook.cells if cell.cell_type == "code"}


def text(outputs: list[Any]) -> str:
    return "".join(output.get("text", "") for output in outputs)


def widget(outputs: list[Any]) -> str:
    """What stands for a widget where there are none."""
    (data,) = (output.data for output in outputs if output.output_type != "stream")
    assert "application/vnd.jupyter.widget-view+json" in data
    return str(data["text/plain"])


def test_on_one_node_and_what_becomes_of_the_users_copy(stack: Stack, person: People) -> None:
    alice = person("alice")
    alice.run("reserve", "--gpus", "2", "--hours", "1", "--name", "demo")
    assert alice.ssh("gpu-demo", "ls gpu-dev-examples").stdout.split() == ["README.md", "first-steps.ipynb"]
    shipped = nbformat.reads(alice.ssh("gpu-demo", f"cat {NOTEBOOK}").stdout, as_version=4)  # type: ignore[no-untyped-call]
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in shipped.cells)

    before = alice.json("show", "demo")
    outputs = execute(alice, "gpu-demo")
    assert "VBox(" in widget(outputs["show"])
    assert "DatetimePicker(" in widget(outputs["show-end"])
    gpus, simulated = text(outputs["show-gpus"]).splitlines()
    assert re.fullmatch(r"node-[12]: GPUs \d, \d", gpus)
    assert simulated == "These GPUs are simulated: there is no hardware, so nvidia-smi is not run."
    assert text(outputs["do-extend"]).startswith("Extended by 15 minutes.")
    assert alice.json("show", "demo")["hours"] == before["hours"] + 0.25
    assert text(outputs["show-ssh"]).splitlines() == [
        f"Install gpu-dev: see {stack.url}/services/gpudev/help",
        f"Log in once: gpu-dev login --url {stack.url}",
        "Connect: ssh gpu-demo",
    ]
    assert text(outputs["run-on-nodes"]).startswith("Your reservation has one node.")
    assert f"Your home is {stack.settings.home_of('alice')}. It has " in text(outputs["show-files"])
    raw = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d")
    assert not [text(cell) for cell in outputs.values() if raw.search(text(cell))], "times on the wire"

    # The last cell, as its reader changes it.
    alice.ssh("gpu-demo", f"sed -i 's/release = False/release = True/' {NOTEBOOK}")
    alice.ssh("gpu-demo", EXECUTE, check=False, timeout=180)
    assert stack.wait_state(before["id"], "ended", "alice")["outcome"] == "released"

    alice.run("reserve", "--gpus", "1", "--hours", "1", "--name", "later")
    assert "release = True" in alice.ssh("gpu-later", f"cat {NOTEBOOK}").stdout, "the user's copy"
    alice.release("later")


def test_on_each_node_of_a_pair(person: People) -> None:
    bob = person("bob")
    bob.run("reserve", "--nodes", "2", "--hours", "1", "--name", "pair")
    for host in ("gpu-pair", "gpu-pair-1"):
        outputs = execute(bob, host)
        assert text(outputs["show-ssh"]).endswith("Connect: ssh gpu-pair\nConnect: ssh gpu-pair-1\n")
        told = r"NODE_RANK={} NNODES=2 MASTER_ADDR=127\.0\.0\.1 MASTER_PORT=(\d+)\n"
        found = re.fullmatch(told.format(0) + told.format(1), text(outputs["run-on-nodes"]))
        assert found is not None, text(outputs["run-on-nodes"])
        assert found[1] == found[2]
    bob.release("pair")


def test_a_home_that_takes_no_examples_starts_a_server(stack: Stack, person: People) -> None:
    obstacle = stack.settings.home_of("carol") / ".local" / "share" / "gpudev"
    obstacle.parent.mkdir(parents=True)
    obstacle.write_text("a file")
    carol = person("carol")
    carol.run("reserve", "--gpus", "1", "--hours", "1", "--name", "odd")
    assert carol.ssh("gpu-odd", "ls").stdout == ""
    assert obstacle.read_text() == "a file"
    (log,) = stack.settings.servers.glob(f"{carol.json('show', 'odd')['id']}-*/0/logs/launcher.log")
    assert "the home did not get the folder gpu-dev-examples: " in log.read_text()
    carol.release("odd")


@pytest.mark.gpu
@pytest.mark.skipif(find_real() is None, reason="NO NVIDIA GPU HERE: the notebook was not run on real GPUs")
def test_on_a_real_gpu() -> None:
    with tempfile.TemporaryDirectory(prefix="gd-", ignore_cleanup_errors=True) as folder:
        stack = Stack(Path(folder), pool="")
        try:
            stack.start()
            dave = Person(stack, "dave")
            dave.login()
            dave.run("reserve", "--gpus", "1", "--hours", "1", "--name", "real")
            told = text(execute(dave, "gpu-real")["show-gpus"])
            assert "simulated" not in told
            assert "NVIDIA-SMI" in told
        finally:
            stack.close()
