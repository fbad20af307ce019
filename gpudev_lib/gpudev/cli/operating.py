"""``node``: what operators do to the machines that reservations run on."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click
import msgspec

from gpudev.cli import tables
from gpudev.cli.output import connect, console, echo, emit, json_option

if TYPE_CHECKING:
    from gpudev import wire


class NodeSummary(msgspec.Struct, kw_only=True):
    """One node, as ``node list --json`` prints it."""

    name: str
    gpu_type: str
    status: str
    """``up``, ``down``, ``unknown`` or ``drained``."""
    gpus: int
    held: int
    """GPUs that reservations hold now."""
    owners: list[str]
    """Whose these are."""


class NodeList(msgspec.Struct, kw_only=True):
    """``node list --json``."""

    nodes: list[NodeSummary]


@click.group()
def node_command() -> None:
    """See the nodes; drain them, put them back.

    All but `list` takes an operator's token, in GPUDEV_TOKEN: the one that `gpu-dev login` makes is none.
    """


@node_command.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the nodes: their state, and what is held on them."""
    timeline = connect().api.timeline()
    found = [_summary(pool.gpu_type, node) for pool in timeline.pools for node in pool.nodes]
    if as_json:
        emit(NodeList(nodes=found))
        return
    rows = [(n.name, n.status, f"{n.held} of {n.gpus} held", ", ".join(n.owners), n.gpu_type) for n in found]
    console().print(tables.plain(("NODE", "STATE", "GPUS", "WHOSE", "TYPE"), rows))


def _summary(gpu_type: str, node: wire.TimelineNode) -> NodeSummary:
    held = [bar for bar in node.bars if bar.state != "queued"]
    return NodeSummary(
        name=node.name,
        gpu_type=gpu_type,
        status=node.status,
        gpus=node.gpus,
        held=sum(bar.gpus for bar in held),
        owners=sorted({bar.owner for bar in held}),
    )


@node_command.command("drain")
@click.argument("name")
def drain(name: str) -> None:
    """Give a node nothing new.

    What runs there runs on to its end; who was planned there is planned elsewhere, or later.
    """
    connect().api.operate_node(name, "drain")
    echo(f"{name} is drained: it gets nothing new. Back with: gpu-dev node undrain {name}")


@node_command.command("undrain")
@click.argument("name")
def undrain(name: str) -> None:
    """Put a drained or lost node back."""
    connect().api.operate_node(name, "undrain")
    echo(f"{name} is no longer drained: it is used as soon as it is seen up.")


@node_command.command("lost")
@click.argument("name")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def lost(name: str, yes: bool) -> None:
    """Say that a node will not come back.

    What ran there ends at once, as node_lost. On a terminal it asks before.
    """
    client = connect()
    if not yes and sys.stdin.isatty():
        text = f"Everything that runs on {name} ends as lost. Is {name} gone for good?"
        if not click.confirm(text, err=True):
            echo(f"{name} stays as it is.")
            return
    client.api.operate_node(name, "lost")
    echo(f"{name} is lost. Should it come back: gpu-dev node undrain {name}")
