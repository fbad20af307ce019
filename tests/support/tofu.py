"""Runs OpenTofu, the program that ``GPUDEV_TOFU`` names, on copies of ``infra``.

It makes plans but never applies them. The program may be a real ``tofu`` or one with stand-in providers. It
never gets credentials.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

REPOSITORY = Path(__file__).resolve().parents[2]
INFRA = REPOSITORY / "infra"
ROOTS = tuple(sorted(path.parent.name for path in (INFRA / "aws").glob("*/versions.tf")))
ENVIRONMENTS = ("test", "prod")
SCRATCH = REPOSITORY / ".tools" / "infra"

# Images are built from these, and no plan reads them.
_LEFT_OUT = shutil.ignore_patterns("images", "*.tfstate*", ".terraform*", "tofu_offline_tmp_override.tf")
_FRAME = re.compile("[╷│╵]")
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")

Json: TypeAlias = dict[str, Any]


# Outputs of infra/aws/cluster that other code takes apart.
_INVENTED: Json = {
    "cluster_endpoint": "https://0123456789ABCDEF.gr7.us-east-2.eks.amazonaws.com",
    "cluster_ca": "Q0EK",
    "file_system_id": "fs-0123456789abcdef0",
}


class Tofu:
    """A copy of ``infra`` in which commands run."""

    def __init__(self, program: str, name: str) -> None:
        """Make the copy. Its folder depends only on the name, so later runs have the files of ``init``."""
        self.program = program
        self.infra = SCRATCH / name / "infra"
        shutil.rmtree(self.infra, ignore_errors=True)
        shutil.copytree(INFRA, self.infra, ignore=_LEFT_OUT)
        for root in ROOTS:
            # Without a bucket there is no state, so every plan is for a new installation.
            (self.folder(root) / "backend_override.tf").write_text('terraform {\n  backend "local" {}\n}\n')

    def folder(self, root: str) -> Path:
        """Return the copy of one root folder."""
        return self.infra / "aws" / root

    def give_state(self, cluster: Json) -> None:
        """Let the folder ``platform`` read the outputs that a plan of ``cluster`` has, instead of a bucket.

        Values that only AWS knows are invented. Outputs that ``cluster`` does not have stay missing.
        """
        outputs = {
            name: output.get("after", _INVENTED.get(name, f"invented-{name}"))
            for name, output in cluster["output_changes"].items()
        }
        state = self.folder("platform") / "cluster.json"
        state.write_text(json.dumps(_state(outputs)))
        (self.folder("platform") / "state_override.tf").write_text(
            'data "terraform_remote_state" "cluster" {\n  backend = "local"\n'
            f'  config  = {{ path = "{state}" }}\n}}\n'
        )

    def run(self, root: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one command in a root folder."""
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "TF_"))
        }
        return subprocess.run(
            [self.program, *arguments],
            cwd=self.folder(root),
            env=environment | {"TF_IN_AUTOMATION": "1", "TF_INPUT": "0"},
            capture_output=True,
            text=True,
            check=False,
        )

    def init(self, root: str) -> None:
        """Prepare a root folder.

        Raises ``AssertionError`` with what the command printed.
        """
        done = self.run(root, "init", "-input=false")
        assert done.returncode == 0, said(done)

    def plan(self, root: str, environment: str, *options: str) -> Json:
        """Return the plan of an environment, as ``tofu show -json`` has it.

        Raises ``AssertionError`` with what the command printed.
        """
        planned = self.run(
            root, "plan", f"-var-file={environment}.tfvars", "-out=plan", "-input=false", *options
        )
        assert planned.returncode == 0, said(planned)
        shown = self.run(root, "show", "-json", "plan")
        assert shown.returncode == 0, said(shown)
        found: Json = json.loads(shown.stdout)
        return found


def _state(outputs: Json) -> Json:
    """Return a state of version 4 with these outputs alone."""
    return {
        "version": 4,
        "terraform_version": "1.10.0",
        "serial": 1,
        "lineage": "00000000-0000-0000-0000-000000000000",
        "outputs": {name: {"value": value, "type": _type(value)} for name, value in outputs.items()},
        "resources": [],
    }


def _type(value: object) -> Json | list[Any] | str:
    """Return the type of a JSON value, in the notation of states."""
    if isinstance(value, dict):
        return ["object", {name: _type(each) for name, each in value.items()}]
    if isinstance(value, list):
        return ["tuple", [_type(each) for each in value]]
    if isinstance(value, bool):
        return "bool"
    return "number" if isinstance(value, int | float) else "string"


def said(done: subprocess.CompletedProcess[str]) -> str:
    """Return the errors of a command in one line: messages are wrapped, and tests look for sentences."""
    text = " ".join(_FRAME.sub(" ", _COLOUR.sub("", done.stdout + done.stderr)).split())
    start = text.find("Error: ")
    return text[max(start, 0) :]


@contextmanager
def alone(name: str) -> Iterator[None]:
    """Keep other workers of the same run out."""
    SCRATCH.mkdir(parents=True, exist_ok=True)
    with (SCRATCH / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def fingerprint() -> str:
    """Return a digest of all that a plan depends on."""
    digest = hashlib.sha256()
    for path in sorted(INFRA.rglob("*")):
        if path.is_file() and "images" not in path.relative_to(INFRA).parts:
            digest.update(str(path.relative_to(INFRA)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:20]
