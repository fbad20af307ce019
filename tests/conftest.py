"""What holds for all tests."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """A runner started in the background of a shell ignores Ctrl-C, and so would everything it starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
