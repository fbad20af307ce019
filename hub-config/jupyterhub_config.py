"""The configuration of JupyterHub on one machine (``make run``).

One function sets everything that gpudev needs. Put the settings of your site below it.
"""

import os

from gpudev_hub.hub.setup import configure
from gpudev_hub.settings import Settings

c = get_config()  # noqa: F821  (JupyterHub provides it)

configure(c, Settings.read(os.environ))
