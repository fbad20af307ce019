"""Which display a reservation gets: on a terminal, in a log, or in a notebook."""

from __future__ import annotations

import importlib.util
import sys

from gpudev.panels import Followed, HtmlPanel
from gpudev.progress import Progress, Silent, for_stream


def choose(wanted: Progress | bool | None, reservation: Followed) -> Progress:
    """Return the wanted progress; for None and True, choose by the environment."""
    if wanted is False:
        return Silent()
    if wanted is not None and wanted is not True:
        return wanted
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    # Only the kernel of a notebook has one.
    return panel(reservation) if getattr(shell, "kernel", None) is not None else for_stream(sys.stderr)


def panel(reservation: Followed) -> Progress:
    """Return the panel for a notebook, with buttons if ipywidgets is installed."""
    if importlib.util.find_spec("ipywidgets") is None:
        return HtmlPanel(reservation)
    from gpudev.widgets import Panel

    return Panel(reservation)
