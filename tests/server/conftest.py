from collections.abc import Iterator

import pytest

from pod_world import Pods, unusable
from ssh_world import World


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pods]:
    """Return an environment for server containers, with the service and a user who has access."""
    problem = unusable()
    if problem:
        pytest.skip(problem)
    with pytest.MonkeyPatch.context() as patch, World(tmp_path_factory.mktemp("pods"), user="dev") as world:
        patch.setenv("HOME", str(world.home))
        patch.setenv("GPUDEV_CONFIG", str(world.home / ".gpu-dev-config"))
        patch.delenv("SSH_AUTH_SOCK", raising=False)
        (world.home / ".gpu-dev-config").write_text("{}")
        pods = Pods(world)
        try:
            yield pods
        finally:
            pods.close()
