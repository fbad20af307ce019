"""Settings and fixtures for all tests."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from dynamodb_local import DynamoDBLocal
    from dynamodb_proxy import FaultProxy

_NEED_HOME = frozenset({"gpu-dev", "gpudev-hub", "scp", "sftp", "ssh"})
"""Programs that read or write the user's files. The SSH configuration lets ssh run gpu-dev."""


def pytest_configure() -> None:
    """Restore Ctrl-C and the umask.

    A runner that a shell started in the background ignores Ctrl-C, and so would all its child processes.
    Tests with other accounts need files that those accounts can read.
    """
    os.umask(0o022)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.addaudithook(_require_home)


def _require_home(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse to start these programs without ``HOME``: they would change files in the account's real home."""
    if event not in ("subprocess.Popen", "os.exec", "os.posix_spawn"):
        return
    (program, argv), environment = arguments[:2], arguments[-1]
    names = {Path(os.fsdecode(word)).name for word in (program, *argv)}
    if environment is None or not names & _NEED_HOME or environment.keys() & {"HOME", b"HOME"}:
        return
    refusal = f"{argv} would use the real home: add HOME to its environment"
    if event == "os.exec":  # in a forked process, which must not go on with the tests
        os.write(2, f"{refusal}\n".encode())
        os._exit(127)
    raise AssertionError(refusal)


@pytest.fixture(scope="session", autouse=True)
def separate_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Use a separate home in all tests and their child processes. Only the folder of caches is shared."""
    with pytest.MonkeyPatch.context() as patch:
        if "XDG_CACHE_HOME" not in os.environ:
            patch.setenv("XDG_CACHE_HOME", str(Path.home() / ".cache"))
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Fail skipped tests in CI, which has everything except GPUs. A skipped test proves nothing."""
    report = yield
    if (
        item.get_closest_marker("gpu") is None
        and report.skipped
        and os.environ.get("CI")
        and not hasattr(report, "wasxfail")
    ):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} is skipped, which must not happen in CI: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def dynamodb() -> Iterator[DynamoDBLocal]:
    """Run DynamoDB Local for the whole test run. Tests that use it have the mark ``dynamodb``."""
    from dynamodb_local import ENVIRONMENT, DynamoDBLocal

    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        local = DynamoDBLocal()
        yield local
        local.close()


@pytest.fixture
def proxy(dynamodb: DynamoDBLocal) -> Iterator[FaultProxy]:
    """Return a proxy to that DynamoDB, on which requests and answers can fail."""
    from dynamodb_proxy import FaultProxy

    proxy = FaultProxy(dynamodb.url)
    yield proxy
    proxy.close()
