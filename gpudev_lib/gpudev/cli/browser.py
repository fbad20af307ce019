"""The browser of this machine, if it has one that its user sees."""

from __future__ import annotations

import os
import sys
import webbrowser


def graphical() -> bool:
    """Return whether this machine can show a browser."""
    return sys.platform == "darwin" or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    )


def browser_here() -> bool:
    """Return whether a browser of this machine is in front of the user, who may be connected with SSH."""
    remote = any(os.environ.get(name) for name in ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY"))
    return graphical() and not remote


def open_page(address: str) -> bool:
    """Open an address in the browser, and return whether that worked."""
    try:
        return webbrowser.open(address)
    except webbrowser.Error:
        return False
