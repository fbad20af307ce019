"""The table of commands, and how their errors become messages and exit codes."""

from __future__ import annotations

import errno
import importlib
import sys

import click

from gpudev.cli.output import complain, emit, say
from gpudev.cli.streams import give_up
from gpudev.errors import GpuDevError, cause

INTERRUPTED = 130
_OF_A_STREAM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF, errno.EPIPE)

COMMANDS = {
    "reserve": ("reserve", "Reserve GPUs and wait until they are ready."),
    "wait": ("reserve", "Wait until a reservation is ready."),
    "list": ("reading", "List reservations."),
    "show": ("reading", "Show one reservation."),
    "logs": ("reading", "Show start events and the last log lines."),
    "avail": ("reading", "Show free GPUs, and when each size could start."),
    "quota": ("limits", "Show your limits, and what is left."),
    "usage": ("usage", "Show GPU-hours, waits and early releases."),
    "cancel": ("changing", "Release running reservations, or cancel queued ones."),
    "extend": ("changing", "Extend a reservation."),
    "share": ("changing", "Give another user access to a server."),
    "unshare": ("changing", "End another user's access to a server."),
    "ssh": ("connect", "Open a shell on a server, or run a command there."),
    "open": ("connect", "Open JupyterLab in the browser."),
    "node": ("operating", "List, drain and undrain nodes (for operators)."),
    "admin": ("admin", "Check the hub, access and limits (for operators)."),
    "ssh-config": ("connect", "Set up `ssh gpu-NAME` for ssh, scp, rsync and VS Code."),
    "login": ("account", "Log in to a hub and save a token."),
    "logout": ("account", "Log out and delete the token."),
    "whoami": ("account", "Show your account and what your token may do."),
    "config": ("account", "Read and change the configuration file."),
}
"""Module and help line of each command. Only the module of the command in use is loaded."""

SYNONYMS = {"release": "cancel"}
"""Words of the pages and the library that people also type here."""


class Commands(click.Group):
    """The group of all commands, each loaded when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        cmd_name = SYNONYMS.get(cmd_name, cmd_name)
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"gpudev.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_") + "_command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command. For an unknown one, suggest the command with the most similar name."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            for name in difflib.get_close_matches(args[0], COMMANDS, n=1):
                raise click.UsageError(f"{error.message} Did you mean {name!r}?", error.ctx) from None
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list in ``--help`` from `COMMANDS`, without loading any command."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
        Exit codes:
          0  success                         6  hub or service not reachable
          1  unexpected error                7  timeout while waiting
          2  invalid usage or input          8  reservation ended while waiting
          3  reservation not found           9  invalid configuration
          4  refused now                   130  interrupted
          5  not logged in, or not allowed""",
)
@click.version_option(package_name="gpudev")
def gpu_dev() -> None:
    """Reserve GPU dev servers, wait in the queue, and connect.

    Run `gpu-dev COMMAND --help` for the options of a command.

    Shell completion for bash: eval "$(_GPU_DEV_COMPLETE=bash_source gpu-dev)"; for zsh and fish, use
    zsh_source or fish_source.
    """


def main(args: list[str]) -> int:
    """Run one command and return the exit code."""
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
    """Report an error of a file, a program or standard output, and return the exit code."""
    if error.filename is not None or error.errno not in _OF_A_STREAM:
        where = f": {error.filename}" if error.filename is not None else ""
        complain(GpuDevError(f"{cause(error)}{where}"), as_json=False)
        return 1
    give_up()
    if error.errno != errno.EPIPE:
        lost = GpuDevError(
            f"The result could not be written to standard output: {error.strerror}.",
            hint="The command may still have taken effect. Check with: gpu-dev list",
        )
        complain(lost, as_json=False)
    return 1
