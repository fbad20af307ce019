"""DynamoDB Local: one Java process for a test run, and a new table for each test."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import httpx

from gpudev_hub.server.isolation import die_with_parent
from gpudev_hub.stores.dynamodb.calls import connect
from hub_users import free_port, wait_for

ROOT = Path(__file__).parents[2]
JARS = ROOT / ".tools" / "dynamodb"
TABLE = ROOT / "infra" / "dynamodb-table.json"
REGION = "us-east-1"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "gpudev",
    "AWS_SECRET_ACCESS_KEY": "gpudev",
    "AWS_DEFAULT_REGION": REGION,
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    "NO_PROXY": "127.0.0.1",
}
"""Environment for boto3, without settings of this machine."""

_numbers = itertools.count(1)


class DynamoDBLocal:
    """Runs in memory, on a separate loopback port. It ends with the process that started it."""

    def __init__(self) -> None:
        if not JARS.is_dir():
            raise RuntimeError(f"{JARS} is missing: run `make test-dynamodb`, which fetches it")
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        # The folder into which it unpacks a library, which it does not delete.
        self._folder = tempfile.TemporaryDirectory(prefix="gd-", ignore_cleanup_errors=True)
        self._process = subprocess.Popen(
            [
                "java",
                "-Xmx512m",
                # It shares the machine's cores with the tested processes, and runs only for minutes.
                "-XX:TieredStopAtLevel=1",
                "-XX:+UseSerialGC",
                f"-Djava.io.tmpdir={self._folder.name}",
                f"-Djava.library.path={JARS}",
                "-cp",
                f"{JARS}/*",
                "com.amazonaws.services.dynamodbv2.local.main.ServerRunner",
                "-inMemory",
                "-sharedDb",
                "-port",
                str(port),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # Turns off reports of its use.
            env={**os.environ, "DDB_LOCAL_TELEMETRY": "0"},
            preexec_fn=die_with_parent,
        )
        wait_for("DynamoDB Local", self._answers)

    def _answers(self) -> bool:
        assert self._process.poll() is None, "DynamoDB Local ended: is Java 17 or newer installed?"
        try:
            httpx.get(self.url, trust_env=False, timeout=5)
        except httpx.TransportError:
            return False
        return True

    def client(self, url: str | None = None, **options: Any) -> Any:
        """Return a client like the service's. With ``url``, it uses the proxy at that address."""
        return connect(endpoint_url=url or self.url, **options)

    def table(self) -> str:
        """Create a table like the one in production; return its name."""
        name = f"gpudev-{next(_numbers)}"
        definition = json.loads(TABLE.read_text())["create_table"]
        self.client(timeout=20).create_table(TableName=name, **definition)
        return name

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()
