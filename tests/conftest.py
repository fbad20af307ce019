"""Settings and fixtures for all tests."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

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


@pytest.fixture(scope="session", autouse=True)
def separate_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Use a separate home in all tests and their child processes. Only the folder of caches is shared.

    A test that starts one of some programs without ``HOME`` fails: they would use the home of the account.
    """
    # No audit hook: with one, CPython may crash when threads set ``__class__`` (its issue 120198).
    start: Callable[..., None] = subprocess.Popen.__init__
    execute: Callable[..., NoReturn] = os.execve

    def checked_start(
        self: subprocess.Popen[Any], args: Any, *more: Any, env: Any = None, **options: Any
    ) -> None:
        if refusal := _refusal(args, env):
            raise AssertionError(refusal)
        start(self, args, *more, env=env, **options)

    def checked_execute(path: Any, args: Any, env: Any) -> NoReturn:
        if refusal := _refusal(args, env):  # in a forked process, which must not go on with the tests
            os.write(2, f"{refusal}\n".encode())
            os._exit(127)
        execute(path, args, env)

    with pytest.MonkeyPatch.context() as patch:
        if "XDG_CACHE_HOME" not in os.environ:
            patch.setenv("XDG_CACHE_HOME", str(Path.home() / ".cache"))
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        patch.setattr(subprocess.Popen, "__init__", checked_start)
        patch.setattr(os, "execve", checked_execute)
        yield


def _refusal(args: Any, environment: Any) -> str | None:
    words = [args] if isinstance(args, str | bytes | os.PathLike) else [*args]
    names = {Path(os.fsdecode(word)).name for word in words}
    if environment is None or not names & _NEED_HOME or environment.keys() & {"HOME", b"HOME"}:
        return None
    return f"{args} would use the real home: add HOME to its environment"


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
