"""Write the settings, as the code defines them, into the schema of the chart's values. Run this file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import msgspec

from gpudev_hub.cluster_settings import ClusterSettings
from gpudev_hub.github_settings import GithubSettings

SCHEMA: Final = Path(__file__).resolve().parents[1] / "infra" / "chart" / "values.schema.json"


def with_settings(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the schema with the current settings of Hub and service."""
    _, definitions = msgspec.json.schema_components(
        [ClusterSettings, GithubSettings], ref_template="#/$defs/{name}"
    )
    # Settings of the login are in a separate file.
    del definitions["ClusterSettings"]["properties"]["github"]
    definitions = json.loads(json.dumps(definitions))
    own = {name: value for name, value in schema["$defs"].items() if name[0].islower()}
    return schema | {"$defs": own | definitions}


if __name__ == "__main__":
    SCHEMA.write_text(f"{json.dumps(with_settings(json.loads(SCHEMA.read_text())), indent=2)}\n")
