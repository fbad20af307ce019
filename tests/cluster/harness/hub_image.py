"""Builds the images of Hub and service, and of the Hub's proxy, for a cluster that runs them as pods.

The first image follows its Dockerfile, on a Debian with Python instead of ``python:slim``. The second
replaces the image that the chart names: it has the proxy and the Node.js of this checkout.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from .dockerfile import commands, instructions
from .images import Layer, ensure_image
from .layout import CHECKOUT, Layout
from .oci import Image
from .server_image import debian_layer, file_hash, own_wheel, run_packages, run_uv

REQUIREMENTS = CHECKOUT / "requirements" / "kubernetes.txt"
NODE = CHECKOUT / ".venv" / "bin" / "node"
PROXY_FILES = CHECKOUT / ".tools" / "node"
HUB_BASE = "localhost/gpudev-hub-base:test"
"""The image without gpudev's own code. Its build needs the network."""
HUB = "localhost/gpudev-hub"
PROXY = "localhost/configurable-http-proxy"
_STAND_IN = (
    "apt-get update -q\n"
    "apt-get install -q -y --no-install-recommends python3\n"
    "ln -s /usr/bin/python3 /usr/local/bin/python\n"
)
"""Packages that ``python:slim`` has and a minimal Debian lacks."""
_PATH = "PATH=/opt/gpudev/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_PROXY_FOLDER = "srv/configurable-http-proxy"
_PROXY_COMMAND = f"""#!/bin/sh
cd /{_PROXY_FOLDER} && exec ./node node_modules/configurable-http-proxy/bin/configurable-http-proxy "$@"
"""


def hub_base(layout: Layout) -> Image:
    """Return the image of Hub and service without gpudev's own code."""
    return ensure_image(layout, HUB_BASE, _base_layers(layout))


def hub_image(layout: Layout, tag: str) -> Image:
    """Return the whole image, with the code of this checkout. Images with different tags share layers."""
    wheel = own_wheel()
    install = commands("hub", "uv pip install")
    code = Layer(
        "hub-code",
        install + file_hash(wheel),
        lambda root: run_uv(root, _uv(install), {wheel: f"/tmp/out/{wheel.name}"}),
    )
    config = {"User": "1000:1000", "WorkingDir": "/srv/jupyterhub", "Env": [_PATH], "Labels": {"tag": tag}}
    return ensure_image(layout, f"{HUB}:{tag}", [*_base_layers(layout), code], config)


def _base_layers(layout: Layout) -> list[Layer]:
    packages = f"{_STAND_IN}{instructions('hub', 'RUN')[-1]}"
    environment = " && ".join(commands("hub", words) for words in ("uv venv", "uv pip sync"))
    return [
        debian_layer(),
        Layer("hub-packages", packages, lambda root: run_packages(layout, root, packages)),
        Layer(
            "hub-python",
            environment + file_hash(REQUIREMENTS),
            lambda root: run_uv(
                root, _uv(environment), {REQUIREMENTS: f"/tmp/src/requirements/{REQUIREMENTS.name}"}
            ),
        ),
    ]


def _uv(script: str) -> list[str]:
    """Return commands of the Dockerfile's build stage, with its folders below ``/tmp``."""
    stage = "mkdir -p /tmp/src; cd /tmp/src; export PATH=/tmp:$PATH UV_PYTHON_DOWNLOADS=never\n"
    return ["sh", "-euc", stage + script.replace("/out/", "/tmp/out/")]


def proxy_image(layout: Layout, tag: str) -> Image:
    """Return the image of the Hub's proxy, which any user may run."""
    key = file_hash(PROXY_FILES / "package-lock.json") + file_hash(NODE) + _PROXY_COMMAND
    return ensure_image(
        layout,
        f"{PROXY}:{tag}",
        [debian_layer(), Layer("proxy", key, _copy_proxy)],
        {"User": "65534:65534", "Env": [_PATH]},
    )


def _copy_proxy(root: Path) -> None:
    folder = root / _PROXY_FOLDER
    shutil.copytree(
        PROXY_FILES / "node_modules",
        folder / "node_modules",
        ignore=shutil.ignore_patterns("@yarnpkg", ".bin"),
    )
    shutil.copy(NODE, folder)
    command = root / "usr" / "local" / "bin" / "configurable-http-proxy"
    command.write_text(_PROXY_COMMAND)
    command.chmod(0o755)
