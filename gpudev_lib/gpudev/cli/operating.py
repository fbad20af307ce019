"""``node``: the nodes that reservations run on, for operators."""

from __future__ import annotations

import sys

import click
import msgspec

from gpudev import clock, wire, words
from gpudev.cli import tables
from gpudev.cli.output import confirm, connect, console, echo, emit, json_option


class NodeSummary(msgspec.Struct, kw_only=True):
    """One node, as ``node list --json`` prints it."""

    name: str
    gpu_type: str
    status: str
    """``up``, ``down``, ``unknown`` or ``drained``."""
    gpus: int
    held: int
    """GPUs held by reservations now."""
    owners: list[str]
    """Owners of these reservations."""
    reason: str | None
    """Why nothing new starts on a drained node; null if an operator drained it."""
    until: str | None
    """When the servers on the node must have ended, because the node itself ends; null: it does not."""


class NodeList(msgspec.Struct, kw_only=True):
    """``node list --json``."""

    nodes: list[NodeSummary]


@click.group()
def node_command() -> None:
    """List, drain and undrain nodes (for operators).

    All commands except `list` need an operator token in GPUDEV_TOKEN. Tokens from `gpu-dev login` are not
    operator tokens.
    """


@node_command.command("list")
@json_option
def list_(as_json: bool) -> None:
    """List the nodes and the owners of held GPUs.

    Also shows when a node ends, and why a node is drained.
    """
    timeline = connect().api.timeline()
    found = [_summary(pool.gpu_type, node) for pool in timeline.pools for node in pool.nodes]
    if as_json:
        emit(NodeList(nodes=found))
        return
    console().print(tables.plain(*_table(found)))


def _table(nodes: list[NodeSummary]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return columns and rows; ends and reasons only where a node has one."""
    ends, reasons = any(n.until for n in nodes), any(n.reason for n in nodes)
    columns = ("NODE", "STATE", "GPUS", "OWNERS", "TYPE", *(["UNTIL"] if ends else []))
    rows = []
    for n in nodes:
        row = [n.name, n.status, f"{n.held} of {n.gpus} held", ", ".join(n.owners), n.gpu_type]
        until = words.parse_time(n.until)
        if ends:
            row.append(words.when(until, clock.now()) if until else "")
        if reasons:
            row.append(n.reason or "")
        rows.append(tuple(row))
    return (*columns, *(["REASON"] if reasons else [])), rows


def _summary(gpu_type: str, node: wire.TimelineNode) -> NodeSummary:
    held = [bar for bar in node.bars if bar.state != "queued"]
    return NodeSummary(
        name=node.name,
        gpu_type=gpu_type,
        status=node.status,
        gpus=node.gpus,
        held=sum(bar.gpus for bar in held),
        owners=sorted({bar.owner for bar in held}),
        reason=node.reason,
        until=node.until,
    )


@node_command.command("drain")
@click.argument("name")
def drain(name: str) -> None:
    """Drain a node: it gets no new reservations.

    Running reservations on the node continue to their end. Requests that are planned there are re-planned.
    """
    connect().api.operate_node(name, "drain")
    echo(f"{name} is drained and gets no new reservations. To undo: gpu-dev node undrain {name}")


@node_command.command("undrain")
@click.argument("name")
def undrain(name: str) -> None:
    """Return a drained or lost node to the pool."""
    connect().api.operate_node(name, "undrain")
    echo(f"{name} is no longer drained. It gets reservations as soon as it is up.")


@node_command.command("lost")
@click.argument("name")
@click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")
def lost(name: str, yes: bool) -> None:
    """Mark a node as lost: it will not come back.

    Reservations on the node end at once with the outcome node_lost. On a terminal, the command asks first.
    """
    client = connect()
    if not yes and sys.stdin.isatty():
        text = f"All reservations on {name} will end. Is {name} permanently lost?"
        if not confirm(text):
            echo(f"{name} was not changed.")
            return
    client.api.operate_node(name, "lost")
    echo(f"{name} is marked as lost. If it comes back: gpu-dev node undrain {name}")
