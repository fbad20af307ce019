"""``python -m harness``: boots the test cluster, runs commands in it, and ends it."""

from __future__ import annotations

import argparse
import sys

from . import controllers, leader, lifecycle
from .bastion_image import bastion_base
from .hub_image import hub_base, proxy_image
from .kwok import prepare_kwok
from .layout import Layout, Node, make_nodes
from .server_image import base_image, pause_image

_SHELL = ["bash", "--norc", "-i"]


def main() -> int:
    """Run the harness; return the exit code of the command that it ran, or 1 if the harness itself failed."""
    arguments = _parser().parse_args()
    layout = Layout.default()
    try:
        return _do(arguments, layout)
    except lifecycle.HarnessError as error:
        print(f"harness: {error}", file=sys.stderr)
        return 1


def _do(arguments: argparse.Namespace, layout: Layout) -> int:
    match arguments.command:
        case "prepare":
            lifecycle.prepare(layout)
            if arguments.all:
                prepare_kwok(layout)
        case "up":
            lifecycle.up(layout, _nodes(arguments), keep=True)
        case "down":
            lifecycle.down(layout)
        case "run" | "shell":
            return _run(arguments, layout)
        case "images":
            pause_image(layout)
            base_image(layout)
            bastion_base(layout)
            hub_base(layout)
            proxy_image(layout, "test")
        case "lead":
            leader.lead(layout, arguments.lock)
        case "controllers":
            controllers.run(layout)
    return 0


def _run(arguments: argparse.Namespace, layout: Layout) -> int:
    command = getattr(arguments, "words", None) or _SHELL
    command = command[1:] if command[0] == "--" else command
    nodes = _nodes(arguments)
    if lifecycle.runs(layout):
        lifecycle.check_nodes(layout, nodes)
        return lifecycle.enter(layout, command)
    lifecycle.up(layout, nodes, keep=arguments.keep)
    try:
        return lifecycle.enter(layout, command)
    finally:
        if not arguments.keep:
            lifecycle.down(layout)


def _nodes(arguments: argparse.Namespace) -> list[Node]:
    return make_nodes(arguments.nodes, dict(label.split("=", 1) for label in arguments.label))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m harness", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    prepare = commands.add_parser("prepare", help="build what is missing; boot nothing")
    prepare.add_argument("--all", action="store_true", help="kwok too, which no boot needs")
    commands.add_parser("down", help="end the cluster")
    up = commands.add_parser("up", help="boot a cluster that stays until `down`")
    run = commands.add_parser(
        "run", help="run a command beside the cluster, which is booted for it if none runs"
    )
    shell = commands.add_parser("shell", help="the same with a shell")
    for command in (run, shell):
        command.add_argument("--keep", action="store_true", help="leave the cluster running")
    for command in (up, run, shell):
        command.add_argument("--nodes", type=int, default=2, help="real kubelets, 1 to 3 (default 2)")
        command.add_argument(
            "--label", action="append", default=[], metavar="KEY=VALUE", help="of every node"
        )
    run.add_argument("words", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    # The harness calls these itself.
    commands.add_parser("images")
    commands.add_parser("controllers")
    commands.add_parser("lead").add_argument("lock", type=int)
    return parser


if __name__ == "__main__":
    sys.exit(main())
