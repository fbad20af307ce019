"""The Hub's configuration in cluster tests without the JupyterHub chart."""

import os

from gpudev_hub.cluster_settings import ClusterSettings
from gpudev_hub.hub.cluster_setup import configure

c = get_config()  # type: ignore[name-defined] # noqa: F821 (JupyterHub provides it)

configure(c, ClusterSettings.read(os.environ))
exec(os.environ["GPUDEV_TEST_OVERRIDES"])
