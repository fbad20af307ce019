"""The zero-to-jupyterhub chart with our values, rendered by helm; and the Hub's files out of it.

The chart is no part of this repository: ``GPUDEV_CHART`` names its package (``helm pull`` fetches one).
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from manifests import ROOT, Object, of_kind, one

VARIABLE: Final = "GPUDEV_CHART"
VALUES: Final = ROOT / "hub-config" / "values.yaml"
NAMESPACE: Final = "gpudev"
RELEASE: Final = "gpudev"
KUBERNETES: Final = "1.34.4"
"""The version to render for, without a cluster to ask."""
_IN_POD: Final = "/usr/local/etc/jupyterhub"


@dataclass(frozen=True)
class HubFiles:
    """What the chart gives to the Hub's process, in a folder instead of a pod's mounts."""

    config: Path
    """The configuration file; the chart's, with the overrides at its end."""
    env: Mapping[str, str]
    """What the pod's environment would be, without Secrets that are not the chart's."""


def what_is_missing() -> str | None:
    """Why the chart can't be rendered here; ``None`` if it can."""
    if not os.environ.get(VARIABLE):
        return f"{VARIABLE} names no package of the zero-to-jupyterhub chart: NOTHING of the chart is tested"
    return (
        None
        if helm()
        else "helm is neither in PATH nor in .tools/cluster/bin: NOTHING of the chart is tested"
    )


def helm() -> str | None:
    """The helm command, if there is one."""
    path = os.pathsep.join([os.environ.get("PATH", ""), str(ROOT / ".tools" / "cluster" / "bin")])
    return shutil.which("helm", path=path)


def render(chart: str, values: Sequence[Path] = (VALUES,)) -> list[Object]:
    """All objects of a release. CalledProcessError, with helm's words in its notes, when helm refuses."""
    command = [helm() or "helm", "template", RELEASE, chart, f"--namespace={NAMESPACE}"]
    command += [f"--kube-version={KUBERNETES}", *(f"--values={path}" for path in values)]
    done = subprocess.run(command, capture_output=True, text=True)
    try:
        done.check_returncode()
    except subprocess.CalledProcessError as error:
        error.add_note(done.stderr)
        raise
    return [item for item in yaml.safe_load_all(done.stdout) if item]


def unpack_hub(objects: Sequence[Object], folder: Path, overrides: str = "") -> HubFiles:
    """Write the Hub's files below ``folder``, readable for this account alone.

    ``overrides``: lines of configuration that come last of all, for addresses that are others outside a pod.
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
    """The variables that Kubernetes makes of the namespace's Services."""
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
    """The configuration as the Hub's classes would get it: of ``JupyterHub``, ``GpuSpawner`` and the log-in.

    Each with the sections of the classes that it derives from, the nearest winning, as traitlets has it.
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
from oauthenticator.github import GitHubOAuthenticator
from traitlets.config.loader import PyFileConfigLoader
from gpudev_hub.hub.kubernetes import GpuSpawner
config = PyFileConfigLoader(sys.argv[1]).load_config()
found = {
    kind.__name__: {
        name: value
        for section in kind.section_names() if section in config
        for name, value in config[section].items()
    }
    for kind in (JupyterHub, GpuSpawner, GitHubOAuthenticator)
}
print(json.dumps(found, default=repr))
"""
