"""What holds for all tests."""

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
    """A runner started in the background of a shell ignores Ctrl-C, and so would everything it starts.

    Other accounts read what tests of theirs write, whatever the runner's umask.
    """
    os.umask(0o022)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """CI has everything except GPUs: any other test that is skipped there has tested nothing, and fails."""
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
    """DynamoDB Local, for the whole run; a test that asks for it is marked ``dynamodb``."""
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
    """A way to that DynamoDB on which requests and answers can be made to fail."""
    from dynamodb_proxy import FaultProxy

    proxy = FaultProxy(dynamodb.url)
    yield proxy
    proxy.close()
