"""The manifests of ``infra/manifests`` as plain objects, for tests that read, apply or enforce them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
MANIFESTS = ROOT / "infra" / "manifests"
Object = dict[str, Any]


def load(layer: str = "base") -> list[Object]:
    """All objects that a layer's ``kustomization.yaml`` names, in its order; images as they are written."""
    folder = MANIFESTS / layer
    found: list[Object] = []
    for name in read_one(folder / "kustomization.yaml")["resources"]:
        if (folder / name).is_dir():
            found += load(str((folder / name).resolve().relative_to(MANIFESTS)))
        else:
            found += read(folder / name)
    return found


def read(path: Path) -> list[Object]:
    """All objects of one file."""
    return [item for item in yaml.safe_load_all(path.read_text()) if item]


def read_one(path: Path) -> Object:
    """The one object of a file."""
    (found,) = read(path)
    return found


def of_kind(objects: Iterable[Object], *kinds: str) -> list[Object]:
    """Those of these kinds."""
    return [item for item in objects if item["kind"] in kinds]


def one(objects: Iterable[Object], kind: str, name: str, namespace: str | None = None) -> Object:
    """The one object of that name; ValueError if there are more or none."""
    found = [item for item in of_kind(objects, kind) if key(item) == (kind, namespace, name)]
    if len(found) != 1:
        raise ValueError(f"{len(found)} objects are {kind} {namespace}/{name}, where one was expected")
    return found[0]


def key(item: Object) -> tuple[str, str | None, str]:
    """Kind, namespace and name."""
    return item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]


def pod_templates(objects: Iterable[Object]) -> dict[str, Object]:
    """Pod templates of workloads, by ``Kind/name``."""
    return {
        f"{item['kind']}/{item['metadata']['name']}": item["spec"]["template"]
        for item in of_kind(objects, "Deployment", "DaemonSet", "StatefulSet", "Job")
    }


def containers(pod: Mapping[str, Any]) -> Iterator[Object]:
    """All containers of a pod's ``spec``, the initial ones first."""
    yield from pod.get("initContainers", ())
    yield from pod["containers"]


def labels_of_the_chart(component: str) -> dict[str, str]:
    """Of its pods: the old names, which its Services select by, and the new ones."""
    return {
        "app": "jupyterhub",
        "component": component,
        "app.kubernetes.io/name": "jupyterhub",
        "app.kubernetes.io/component": component,
    }


def surroundings() -> list[Object]:
    """What a cluster needs before Hub and service run in it or beside it: the base without its workloads."""
    return [item for item in load() if item["kind"] not in ("Deployment", "DaemonSet")]
