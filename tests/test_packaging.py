"""What is shipped: the wheel's contents, a client that stands alone, lock files that name no hosts."""

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "gpudev": ROOT / "gpudev_lib/gpudev",
    "gpudev_hub": ROOT / "spawner/gpudev_hub",
    "gpudev_jupyter": ROOT / "gpudev_lib/gpudev_jupyter",
}
LAB = ROOT / "gpudev_lib/jupyterlab"
LOCKS = sorted((ROOT / "requirements").glob("*.txt"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def project() -> dict[str, object]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def repository_files() -> Iterator[Path]:
    """Every file that is or is about to be tracked."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        path = ROOT / name
        if path.is_file():
            yield path


def test_wheel_has_everything_in_its_packages_and_nothing_else(wheel: Path) -> None:
    names = {
        name
        for name in zipfile.ZipFile(wheel).namelist()
        if ".dist-info/" not in name and ".data/" not in name
    }
    expected = {
        f"{package}/{path.relative_to(folder)}"
        for package, folder in PACKAGES.items()
        for path in repository_files()
        if path.is_relative_to(folder)
    }
    assert {"gpudev/py.typed", "gpudev_hub/py.typed"} <= names
    assert names == expected


def test_wheel_carries_the_extension_of_jupyterlab(wheel: Path) -> None:
    """As JupyterLab and Jupyter Server look for it, with nothing left to build."""
    with zipfile.ZipFile(wheel) as archive:
        data = {
            name.partition(".data/data/")[2]: archive.read(name)
            for name in archive.namelist()
            if ".data/data/" in name
        }
    lab = "share/jupyter/labextensions/gpudev"
    server = "etc/jupyter/jupyter_server_config.d/gpudev.json"
    scripts = {f"{lab}/static/{path.name}" for path in repository_files() if path.parent == LAB / "static"}
    assert set(data) == {server, f"{lab}/package.json", *scripts}
    build = json.loads(data[f"{lab}/package.json"])["jupyterlab"]["_build"]
    assert f"{lab}/{build['load']}" in scripts
    assert json.loads(data[server]) == {"ServerApp": {"jpserver_extensions": {"gpudev_jupyter": True}}}


def test_wheel_carries_the_licence_and_both_commands(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (scripts,) = (name for name in names if name.endswith(".dist-info/entry_points.txt"))
        assert any(name.endswith("/licenses/LICENSE") for name in names)
        text = archive.read(scripts).decode()
    assert "gpu-dev = gpudev.cli:main" in text
    assert "gpudev-hub = gpudev_hub.app:main" in text


def base_distributions() -> set[str]:
    """The base dependencies and what those need in turn."""
    found: set[str] = set()
    waiting = [Requirement(line) for line in metadata.requires("gpudev") or []]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (requirement.marker and not requirement.marker.evaluate({"extra": ""})) or name in found:
            continue
        found.add(name)
        waiting += [Requirement(line) for line in metadata.requires(name) or []]
    return found


def test_client_imports_with_base_dependencies_only(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    for name in base_distributions():
        distribution = metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or [] if file.parts[0] != ".."}:
            if not (tmp_path / top).exists():
                (tmp_path / top).symlink_to(Path(str(distribution.locate_file(top))))
    modules = [
        ".".join(path.relative_to(ROOT / "gpudev_lib").with_suffix("").parts)
        for path in sorted(PACKAGES["gpudev"].rglob("*.py"))
        if path.name not in ("__init__.py", "__main__.py", "widgets.py")
    ]
    program = (
        "import importlib, importlib.util, sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "assert importlib.util.find_spec('jupyterhub') is None\n"
        "assert importlib.util.find_spec('ipywidgets') is None\n"
        "for name in ['gpudev', *sys.argv[2:]]: importlib.import_module(name)\n"
        "print(sys.modules['gpudev'].__file__)\n"
    )
    # Isolated and without site-packages: the standard library and that folder.
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, str(tmp_path), *modules],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "gpudev/__init__.py")


def registry_hosts() -> set[str]:
    """The public registries, and whichever this machine installs from."""
    hosts = {".".join(parts) for parts in (("pypi", "org"), ("pythonhosted", "org"), ("npmjs", "org"))}
    hosts |= {".".join(parts) for parts in (("npmjs", "com"), ("yarnpkg", "com"))}
    names = (
        "PIP_INDEX_URL",
        "UV_INDEX_URL",
        "UV_DEFAULT_INDEX",
        "NPM_CONFIG_REGISTRY",
        "YARN_NPM_REGISTRY_SERVER",
    )
    for name in names:
        host = urlsplit(os.environ.get(name, "")).hostname
        if host:
            hosts.add(host)
    return hosts


def test_no_file_names_a_package_registry() -> None:
    hosts = [host.encode() for host in registry_hosts()]
    named = [
        f"{path.relative_to(ROOT)}: {host.decode()}"
        for path in repository_files()
        for host in hosts
        if host in path.read_bytes()
    ]
    assert not named


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_python_locks_are_hashed_and_have_no_addresses(lock: Path) -> None:
    text = lock.read_text().replace("\\\n", " ")
    for line in filter(None, text.splitlines()):
        assert re.match(r"[a-z0-9][a-z0-9.-]*==\S+ ", line), line
        assert "--hash=sha256:" in line
    assert "://" not in text


def test_node_locks_have_checksums_and_no_addresses() -> None:
    lock = json.loads((ROOT / "requirements/node/package-lock.json").read_text())
    for name, package in lock["packages"].items():
        assert "resolved" not in package
        assert not name or package["integrity"].startswith("sha512-")
    assert "://" not in (ROOT / "yarn.lock").read_text()


@pytest.mark.parametrize(
    ("lock", "extras", "groups"),
    [("hub.txt", ["hub"], []), ("server.txt", ["server"], []), ("dev.txt", ["hub", "widgets"], ["dev"])],
)
def test_locks_satisfy_what_the_project_declares(lock: str, extras: list[str], groups: list[str]) -> None:
    declared = project()
    table = declared["project"]
    assert isinstance(table, dict)
    dependency_groups = declared["dependency-groups"]
    assert isinstance(dependency_groups, dict)
    wanted = list(table["dependencies"])
    for extra in extras:
        wanted += table["optional-dependencies"][extra]
    for group in groups:
        wanted += dependency_groups[group]
    pins = dict(
        re.findall(r"^([a-z0-9.-]+)==(\S+)", (ROOT / "requirements" / lock).read_text(), re.MULTILINE)
    )
    for line in wanted:
        requirement = Requirement(line)
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), line


def test_jupyter_and_hub_compile_no_grammar_when_they_start() -> None:
    code = "import sys, jupyter_events; sys.exit('lark' in sys.modules)"
    for environment in (".venv", ".venv-server"):
        subprocess.run([ROOT / environment / "bin/python", "-I", "-c", code], check=True)
