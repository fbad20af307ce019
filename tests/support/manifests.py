"""The Kubernetes objects of the chart, for tests that read, apply or enforce them.

helm is not on every machine, so these are rendered beforehand (``tests/manifests/rendered``).
``tests/manifests`` checks that they are up to date, ``tests/cluster/test_rendering.py`` that helm renders the
same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[2]
CHART: Final = ROOT / "infra" / "chart"
RENDERED: Final = ROOT / "tests" / "manifests" / "rendered"
LAYERS: Final = {
    "kubernetes": (CHART / "example.yaml",),
    "aws": (CHART / "aws.yaml", CHART / "example.yaml", RENDERED / "values-aws.yaml"),
}
"""Files of values, by the name of their rendering; the later ones win."""
Object = dict[str, Any]


def load(layer: str = "kubernetes") -> list[Object]:
    """Return all objects of an installation with the values of that layer, and the release's namespace."""
    return [*read(CHART / "namespace.yaml"), *read(rendering(layer))]


def rendering(layer: str) -> Path:
    """Return the file of a rendering."""
    return RENDERED / f"{layer}.yaml"


def fingerprint(layer: str) -> str:
    """Return a digest of everything that decides what helm renders."""
    digest = hashlib.sha256()
    for path in (CHART / "Chart.yaml", CHART / "values.yaml", *LAYERS[layer], *sorted(templates())):
        digest.update(f"{path.relative_to(ROOT)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def templates() -> list[Path]:
    """Return the chart's templates."""
    return [path for path in (CHART / "templates").iterdir() if path.is_file()]


def read(path: Path) -> list[Object]:
    """Return all objects of one file."""
    return [item for item in yaml.safe_load_all(path.read_text()) if item]


def read_one(path: Path) -> Object:
    """Return the one object of a file."""
    (found,) = read(path)
    return found


def hub_values(*files: Path) -> Object:
    """Return the values of the jupyterhub chart: gpudev's, overridden by those of further files."""
    found: Object = {}
    for path in (CHART / "values.yaml", *files):
        found = merged(found, read_one(path).get("jupyterhub", {}))
    return found


def merged(under: Object, over: Mapping[str, Any]) -> Object:
    """Merge values as helm does: objects field by field, everything else replaced."""
    return under | {
        name: merged(under[name], value)
        if isinstance(value, dict) and isinstance(under.get(name), dict)
        else value
        for name, value in over.items()
    }


def of_kind(objects: Iterable[Object], *kinds: str) -> list[Object]:
    """Return the objects of these kinds."""
    return [item for item in objects if item["kind"] in kinds]


def one(objects: Iterable[Object], kind: str, name: str, namespace: str | None = None) -> Object:
    """Return the one object of that name. Raises ``ValueError`` if there are several or none."""
    found = [item for item in of_kind(objects, kind) if key(item) == (kind, namespace, name)]
    if len(found) != 1:
        raise ValueError(f"{len(found)} objects are {kind} {namespace}/{name}, where one was expected")
    return found[0]


def key(item: Object) -> tuple[str, str | None, str]:
    """Return kind, namespace and name of an object."""
    return item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]


def pod_templates(objects: Iterable[Object]) -> dict[str, Object]:
    """Return the pod templates of workloads, by ``Kind/name``."""
    return {
        f"{item['kind']}/{item['metadata']['name']}": item["spec"]["template"]
        for item in of_kind(objects, "Deployment", "DaemonSet", "StatefulSet", "Job")
    }


def containers(pod: Mapping[str, Any]) -> Iterator[Object]:
    """Yield all containers of a pod's ``spec``, the init containers first."""
    yield from pod.get("initContainers", ())
    yield from pod["containers"]


def labels_of_the_chart(component: str) -> dict[str, str]:
    """Return the labels of the chart's pods: the old names, which Services select by, and the new ones."""
    return {
        "app": "jupyterhub",
        "component": component,
        "app.kubernetes.io/name": "jupyterhub",
        "app.kubernetes.io/component": component,
    }


def policy_probe(image: str) -> list[Object]:
    """Return the policy probe, which is optional, with an image that nodes already have."""
    names = ("gpudev-policy-probe", "policy-probe")
    found = [item for item in load("aws") if item["metadata"]["name"] in names]
    for template in pod_templates(found).values():
        for container in containers(template["spec"]):
            container |= {"image": image, "imagePullPolicy": "Never"}
    return found


def surroundings() -> list[Object]:
    """Return what a cluster needs before Hub and service run: everything except the workloads."""
    return [item for item in load() if item["kind"] not in ("Deployment", "DaemonSet")]
