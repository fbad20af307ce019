"""The commands together, and how their failures become messages and exit codes."""

from __future__ import annotations

import errno
import importlib
import sys

import click

from gpudev.cli.output import complain, emit, say
from gpudev.cli.streams import give_up
from gpudev.errors import GpuDevError

INTERRUPTED = 130
_OF_A_STREAM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF, errno.EPIPE)

COMMANDS = {
    "reserve": ("reserve", "Reserve GPUs and wait until they are ready."),
    "wait": ("reserve", "Wait until a reservation is ready."),
    "list": ("reading", "List reservations."),
    "show": ("reading", "Show one reservation."),
    "logs": ("reading", "Start events, last lines of Jupyter and sshd."),
    "avail": ("reading", "What is free, and when each size could start."),
    "cancel": ("changing", "Release reservations, or give up their places."),
    "extend": ("changing", "Hold a reservation longer."),
    "ssh": ("connect", "Open a shell on a server, or run a command there."),
    "open": ("connect", "Open JupyterLab in the browser."),
    "node": ("operating", "See the nodes; drain them, put them back."),
    "ssh-config": ("connect", "Let ssh, scp, rsync and VS Code find gpu-NAME."),
    "login": ("account", "Get a token of the hub's."),
    "config": ("account", "Read and change the configuration file."),
}
"""Each command's module and what ``--help`` says of it, so that only the module of the one used is loaded."""

SYNONYMS = {"release": "cancel"}
"""Words of the pages and the library that people type here."""


class Commands(click.Group):
    """Loads a command when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """All of them, most used first."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command of this name."""
        cmd_name = SYNONYMS.get(cmd_name, cmd_name)
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"gpudev.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_") + "_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """The list in ``--help``, from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 done, 1 unexpected, 2 bad usage or input, 3 no such reservation, 4 refused,"
    " 5 not logged in, 6 cannot be reached, 7 timed out, 8 ended while waited for, 9 configuration file,"
    " 130 interrupted.",
)
@click.version_option(package_name="gpudev")
def gpu_dev() -> None:
    """GPU dev servers: reserve, wait your turn, connect.

    Completion, for bash (zsh and fish alike): eval "$(_GPU_DEV_COMPLETE=bash_source gpu-dev)"
    """


def main(args: list[str]) -> int:
    """Run one command; returns the exit code."""
    try:
        code = _run(args)
        sys.stdout.flush()
    except OSError as error:
        return _failed(error)
    return code


def _run(args: list[str]) -> int:
    own = args[: args.index("--")] if "--" in args else args
    as_json = "--json" in own
    try:
        result = gpu_dev.main(args, prog_name="gpu-dev", standalone_mode=False)
    except click.UsageError as error:
        if as_json:
            emit({"error": {"code": "usage", "message": error.format_message(), "hint": ""}})
        error.show(sys.stderr)
        return 2
    except click.ClickException as error:
        error.show(sys.stderr)
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        say("Interrupted.")
        return INTERRUPTED
    except GpuDevError as error:
        complain(error, as_json=as_json)
        return error.exit_code
    return result if isinstance(result, int) else 0


def _failed(error: OSError) -> int:
    """A file, a program or standard output is at fault."""
    if error.filename is not None or error.errno not in _OF_A_STREAM:
        complain(GpuDevError(str(error)), as_json=False)
        return 1
    give_up()
    if error.errno != errno.EPIPE:
        lost = GpuDevError(
            f"Standard output cannot be written: {error.strerror}.",
            hint="What you asked for may have been done all the same: `gpu-dev list` shows what you hold.",
        )
        complain(lost, as_json=False)
    return 1
