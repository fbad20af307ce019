from __future__ import annotations

from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

from gpudev import clock, keyring_store
from gpudev.api import Api
from gpudev.client import Client
from live_service import LiveService, live_service

VARIABLES = ("GPUDEV_URL", "GPUDEV_TOKEN", "JUPYTERHUB_API_TOKEN", "JUPYTERHUB_PUBLIC_HUB_URL")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use a separate home, so that no test reads or changes the developer's files."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("GPUDEV_CONFIG", str(folder / "config.json"))
    monkeypatch.setenv("TZ", "UTC")
    # No test writes to the keyring of the developer's desktop.
    monkeypatch.setattr(keyring_store, "_backend", lambda: None)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def service() -> Iterator[LiveService]:
    with live_service() as running:
        yield running
    clock.learn(formatdate(usegmt=True))


@pytest.fixture
def api(service: LiveService) -> Iterator[Api]:
    made = Api(service.url, service.token, patience=5.0)
    yield made
    made.close()


@pytest.fixture
def client(service: LiveService) -> Iterator[Client]:
    with Client(service.url, service.token, patience=5.0) as made:
        yield made


@pytest.fixture
def configured(service: LiveService, monkeypatch: pytest.MonkeyPatch) -> LiveService:
    """Return the service, and set the environment through which clients find it."""
    service.configure(monkeypatch)
    return service
