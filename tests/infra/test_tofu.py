"""OpenTofu's own checks of both root folders, with the providers' real schemas."""

from __future__ import annotations

import re

import pytest

from tofu import ENVIRONMENTS, INFRA, ROOTS, Tofu, said


@pytest.fixture(scope="module")
def tofu(program: str) -> Tofu:
    return Tofu(program, "checks")


def test_the_format_is_that_of_tofu(tofu: Tofu) -> None:
    done = tofu.run("", "fmt", "-check", "-recursive", "-diff")
    assert done.returncode == 0, f"Run `tofu fmt -recursive infra/aws`:\n{done.stdout}"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("root", ROOTS)
def test_the_configuration_is_valid_and_its_tests_pass(tofu: Tofu, root: str) -> None:
    tofu.init(root)
    valid = tofu.run(root, "validate")
    assert valid.returncode == 0, said(valid)
    for environment, files in files_by_environment(tofu, root).items():
        if files:
            filters = [f"-filter=tests/{name}" for name in files]
            done = tofu.run(root, "test", f"-var-file={environment}.tfvars", *filters)
            assert done.returncode == 0, done.stdout + done.stderr


def files_by_environment(tofu: Tofu, root: str) -> dict[str, list[str]]:
    """Return the test files by the environment whose values they run with: prod, but for test.tftest.hcl."""
    names = sorted(path.name for path in tofu.folder(root).glob("tests/*.tftest.hcl"))
    return {
        "test": [name for name in names if name == "test.tftest.hcl"],
        "prod": [name for name in names if name != "test.tftest.hcl"],
    }


@pytest.mark.parametrize("root", ROOTS)
def test_no_test_reaches_a_provider(root: str) -> None:
    """`tofu test` applies unless a run says otherwise, and would make what it tests with a real provider."""
    folder = INFRA / "aws" / root
    providers = re.findall(r'source += "hashicorp/(\w+)"', (folder / "versions.tf").read_text())
    assert providers
    for path in folder.glob("tests/*.tftest.hcl"):
        mocked = re.findall(r'^mock_provider "(\w+)"', path.read_text(), re.MULTILINE)
        assert sorted(mocked) == sorted(providers), f"{path.name} does not mock every provider"


@pytest.mark.parametrize("root", ROOTS)
def test_nothing_differs_between_the_environments_but_their_values(root: str) -> None:
    """The same code for both: a resource that only one has would never have been tried."""
    for path in (INFRA / "aws" / root).glob("**/*.tf"):
        for line in path.read_text().splitlines():
            code = line.split("#")[0]
            assert not any(f'== "{name}"' in code or f'!= "{name}"' in code for name in ENVIRONMENTS), (
                f"{path.name} depends on the environment: {line.strip()}"
            )
