"""The ``gpu-dev`` command. ``gpu-dev --help`` lists its exit codes."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command line and exit."""
    # A child inherits an ignored SIGCHLD. ssh would then fail, and exit statuses would be lost.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if sys.argv[1:2] == ["ssh-sync"]:  # runs before each connection, so it loads nothing else
        from gpudev.cli.sync import main as sync

        sys.exit(sync())
    if sys.argv[1:2] == ["ssh-why"]:
        from gpudev.cli.why import main as why

        sys.exit(why(sys.argv[2:]))
    try:
        from gpudev.cli.app import main as app
        from gpudev.cli.streams import prepare

        prepare()
        code = app(sys.argv[1:])
    except KeyboardInterrupt:  # during the imports
        code = 130
    sys.exit(code)
