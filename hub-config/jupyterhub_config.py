"""JupyterHub's configuration on one machine (``make run``). What the product needs is set in one function;
what a site wants besides goes below it."""

import os

from gpudev_hub.hub.setup import configure
from gpudev_hub.settings import Settings

c = get_config()  # noqa: F821  (JupyterHub provides it)

configure(c, Settings.read(os.environ))
