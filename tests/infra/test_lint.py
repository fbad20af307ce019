"""tflint and checkov on infra/aws. `make test-infra` installs both."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tofu import INFRA, REPOSITORY, ROOTS

CHECKOV = REPOSITORY / ".venv-infra" / "bin" / "checkov"
TFLINT = REPOSITORY / ".tools" / "bin" / "tflint"
pytestmark = pytest.mark.timeout(600)


def folders() -> list[Path]:
    """Return the folders with OpenTofu files: the roots and their modules."""
    return sorted({path.parent for root in ROOTS for path in (INFRA / "aws" / root).glob("**/*.tf")})


@pytest.mark.parametrize("folder", folders(), ids=lambda folder: str(folder.relative_to(INFRA / "aws")))
def test_tflint_finds_nothing(folder: Path) -> None:
    if not TFLINT.exists():
        pytest.skip(f"{TFLINT} is missing; `make test-infra` builds it if Go is there")
    config = INFRA / "aws" / ".tflint.hcl"
    done = subprocess.run(
        [TFLINT, f"--chdir={folder}", f"--config={config}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("root", ROOTS)
def test_checkov_finds_nothing(root: str, tmp_path: Path) -> None:
    if not CHECKOV.exists():
        pytest.skip(f"{CHECKOV} is missing; `make test-infra` installs it")
    # A copy: checkov would also read what a run of OpenTofu has left.
    copy = shutil.copytree(
        INFRA / "aws" / root, tmp_path / root, ignore=shutil.ignore_patterns(".terraform*")
    )
    options = ["--framework", "terraform", "--skip-download", "--quiet", "--compact", "--output", "json"]
    done = subprocess.run(
        [CHECKOV, "-d", copy, "--var-file", copy / "prod.tfvars", *options],
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(done.stdout)
    failed = [
        f"{each['check_id']} {each['check_name']}: {each['resource']} ({each['file_path']})"
        for each in found.get("results", {}).get("failed_checks", ())
    ]
    assert failed == []
    assert done.returncode == 0, done.stderr
    assert found["summary"]["passed"] > 0


@pytest.mark.parametrize("folder", folders(), ids=lambda folder: str(folder.relative_to(INFRA / "aws")))
def test_every_suppression_has_a_reason(folder: Path) -> None:
    for path in folder.glob("*.tf"):
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            if "checkov:skip=" in line:
                _, _, reason = line.partition("checkov:skip=")[2].partition(":")
                assert len(reason.split()) >= 4, f"{path.name}:{number} suppresses a check without a reason"
            assert "tflint-ignore" not in line, f"{path.name}:{number} suppresses tflint"
