"""The ``gpu-dev`` command.

Exit codes: 0 done · 1 something unexpected · 2 bad usage or input · 3 no such reservation · 4 refused (quota,
extension, name taken, …) · 5 not logged in, or forbidden · 6 hub or service cannot be reached · 7 not ready
in the time given · 8 it ended, or failed, while waited for · 9 the configuration · 130 interrupted.
``gpu-dev ssh`` exits with the status of ``ssh``.
"""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command line and exit."""
    # A parent that ignores SIGCHLD passes this on: ssh then fails, and exit statuses are lost.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if sys.argv[1:2] == ["ssh-sync"]:  # runs before each connection: nothing else is loaded
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
    except KeyboardInterrupt:  # while it is loaded
        code = 130
    sys.exit(code)
