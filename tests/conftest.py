"""Settings and fixtures for all tests."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from dynamodb_local import DynamoDBLocal
    from dynamodb_proxy import FaultProxy


def pytest_configure() -> None:
    """Restore Ctrl-C and the umask.

    A runner that a shell started in the background ignores Ctrl-C, and so would all its child processes.
    Tests with other accounts need files that those accounts can read.
    """
    os.umask(0o022)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


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
