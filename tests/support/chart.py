"""Renders gpudev's chart with helm, with or without the jupyterhub chart, and extracts the Hub's files.

The jupyterhub chart is not part of this repository: ``GPUDEV_CHART`` names its package, which ``helm pull``
downloads.

``PYTHONPATH=tests/support .venv/bin/python -m chart`` updates ``tests/manifests/rendered``.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from manifests import CHART, LAYERS, ROOT, Object, fingerprint, of_kind, one, read_one, rendering

VARIABLE: Final = "GPUDEV_CHART"
EXAMPLE: Final = CHART / "example.yaml"
NAMESPACE: Final = "gpudev"
RELEASE: Final = "gpudev"
KUBERNETES: Final = "1.34.4"
"""The Kubernetes version to render for, because there is no cluster to ask."""
_IN_POD: Final = "/usr/local/etc/jupyterhub"


@dataclass(frozen=True)
class HubFiles:
    """The files that the chart gives to the Hub's process, in a folder instead of a pod's mounts."""

    config: Path
    """The chart's configuration file, with the overrides at its end."""
    env: Mapping[str, str]
    """The environment of the pod, without Secrets that are not in the chart."""


def what_is_missing() -> str | None:
    """Return why the whole chart cannot be rendered here; ``None`` if it can."""
    if not os.environ.get(VARIABLE):
        return f"{VARIABLE} names no package of the jupyterhub chart, so that chart is NOT tested"
    return no_helm()


def no_helm() -> str | None:
    """Return why nothing can be rendered here; ``None`` if helm is available."""
    return (
        None if helm() else "helm is neither in PATH nor in .tools/cluster/bin, so the chart is NOT rendered"
    )


def helm() -> str | None:
    """Return the helm command, if there is one."""
    path = os.pathsep.join([os.environ.get("PATH", ""), str(ROOT / ".tools" / "cluster" / "bin")])
    return shutil.which("helm", path=path)


def assemble(folder: Path, package: Path | None = None) -> Path:
    """Copy gpudev's chart into ``folder``, with or without its dependency, the jupyterhub chart.

    The package of that chart is unpacked and gets the version that gpudev's chart requires. Packages made
    between releases have other versions.
    """
    chart = folder / "gpudev"
    shutil.copytree(CHART, chart, ignore=shutil.ignore_patterns("charts", "Chart.lock"))
    about = read_one(chart / "Chart.yaml")
    if package:
        (dependency,) = about["dependencies"]
        with tarfile.open(package) as archive:
            archive.extractall(chart / "charts", filter="data")
        inner = chart / "charts" / dependency["name"] / "Chart.yaml"
        inner.write_text(yaml.safe_dump(read_one(inner) | {"version": dependency["version"]}))
    else:
        del about["dependencies"]
        (chart / "Chart.yaml").write_text(yaml.safe_dump(about))
    return chart


def render(package: str | None, values: Sequence[Path] = (EXAMPLE,), *flags: str) -> list[Object]:
    """Return all objects of a release. Raises ``CalledProcessError`` with helm's message as a note."""
    return [item for item in yaml.safe_load_all(render_text(package, values, *flags)) if item]


def render_text(package: str | None, values: Sequence[Path] = (EXAMPLE,), *flags: str) -> str:
    """Return the output of helm for a release."""
    with tempfile.TemporaryDirectory() as folder:
        chart = assemble(Path(folder), Path(package) if package else None)
        command = [helm() or "helm", "template", RELEASE, str(chart), f"--namespace={NAMESPACE}"]
        command += [f"--kube-version={KUBERNETES}", *(f"--values={path}" for path in values), *flags]
        done = subprocess.run(command, capture_output=True, text=True)
    try:
        done.check_returncode()
    except subprocess.CalledProcessError as error:
        error.add_note(done.stderr)
        raise
    return done.stdout


def rendered(layer: str) -> str:
    """Return the expected content of the file with that rendering."""
    return (
        f"# Rendered from infra/chart {fingerprint(layer)}; to render it again:\n"
        "# PYTHONPATH=tests/support .venv/bin/python -m chart\n"
        f"{render_text(None, LAYERS[layer])}"
    )


def unpack_hub(objects: Sequence[Object], folder: Path, overrides: str = "") -> HubFiles:
    """Write the Hub's files below ``folder``, readable only for this account.

    ``overrides`` are lines at the end of the configuration, for addresses that differ outside a pod.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = one(objects, "ConfigMap", "hub")["data"]
    secret = {name: base64.b64decode(value) for name, value in one(objects, "Secret", "hub")["data"].items()}
    mounts: list[tuple[Path, Mapping[str, str | bytes]]] = [
        (folder / "config", files),
        (folder / "secret", secret),
    ]
    for place, content in mounts:
        place.mkdir(mode=0o700, exist_ok=True)
        for name, text in content.items():
            (place / name).write_bytes(text.encode() if isinstance(text, str) else text)
    for name in ("jupyterhub_config.py", "z2jh.py"):
        (folder / name).write_text(files[name].replace(_IN_POD, str(folder)))
    config = folder / "jupyterhub_config.py"
    with config.open("a") as file:
        file.write(f"\n{overrides}\n")
    return HubFiles(config, _services(objects) | _environment(objects, secret))


def _services(objects: Sequence[Object]) -> dict[str, str]:
    """Return the environment variables that Kubernetes makes for the namespace's Services."""
    return {
        f"{item['metadata']['name'].upper().replace('-', '_')}_SERVICE_PORT": str(
            item["spec"]["ports"][0]["port"]
        )
        for item in of_kind(objects, "Service")
    }


def _environment(objects: Sequence[Object], secret: Mapping[str, bytes]) -> dict[str, str]:
    (container,) = one(objects, "Deployment", "hub")["spec"]["template"]["spec"]["containers"]
    found = {"POD_NAMESPACE": NAMESPACE}
    for entry in container["env"]:
        source = entry.get("valueFrom", {}).get("secretKeyRef", {})
        if "value" in entry:
            found[entry["name"]] = entry["value"]
        elif source.get("name") == "hub":
            found[entry["name"]] = secret[source["key"]].decode()
    return found


def what_wins(files: HubFiles, env: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return the effective configuration of ``JupyterHub``, ``GpuSpawner`` and the authenticator.

    As in traitlets, a class also gets the sections of its base classes, and the nearest class wins.
    """
    done = subprocess.run(
        [sys.executable, "-c", _SHOW, files.config],
        env=os.environ | dict(files.env) | dict(env),
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(f"the configuration can't be loaded: {done.stderr[-2000:]}")
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


_SHOW: Final = """
import json, sys
from jupyterhub.app import JupyterHub
from traitlets.config.loader import PyFileConfigLoader
from gpudev_hub.hub.github import GitHubAppAuthenticator
from gpudev_hub.hub.kubernetes import GpuSpawner
config = PyFileConfigLoader(sys.argv[1]).load_config()
found = {
    kind.__name__: {
        name: value
        for section in kind.section_names() if section in config
        for name, value in config[section].items()
    }
    for kind in (JupyterHub, GpuSpawner, GitHubAppAuthenticator)
}
print(json.dumps(found, default=repr))
"""


def main() -> None:
    """Update the rendering of every layer."""
    for layer in LAYERS:
        rendering(layer).write_text(rendered(layer))


if __name__ == "__main__":
    main()
