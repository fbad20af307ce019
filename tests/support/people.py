"""Users with a laptop: each has a home, a configuration, ``gpu-dev`` and ``ssh``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hub_users import HubUsers

GPU_DEV = str(Path(sys.executable).parent / "gpu-dev")


class Person:
    """One user of a hub, with a separate home, so that users do not share ``~/.ssh``."""

    def __init__(self, stack: HubUsers, name: str) -> None:
        self.stack = stack
        self.name = name
        self.home = stack.folder / "people" / name
        self.home.mkdir(parents=True, exist_ok=True)
        self.ssh_config = self.home / ".ssh" / "config"
        self.environment = {
            "HOME": str(self.home),
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "GPUDEV_CONFIG": str(self.home / ".gpu-dev-config"),
        }

    def login(self) -> None:
        """Run ``gpu-dev login`` with the password that the hub printed when it started."""
        self.run(
            "login",
            "--user",
            self.name,
            "--url",
            self.stack.url,
            "--password-stdin",
            input=self.stack.password(self.name) + "\n",
        )

    def login_with_token(self) -> None:
        """Run ``gpu-dev login`` with a token from the hub's page, for hubs without passwords."""
        token = self.stack.token_for(self.name)
        self.run("login", "--url", self.stack.url, "--token-stdin", input=f"{token}\n")

    def make_key(self) -> str:
        """Make a key pair where ssh finds it; return the public key."""
        folder = self.home / ".ssh"
        folder.mkdir(mode=0o700, exist_ok=True)
        subprocess.run(
            [
                "ssh-keygen",
                "-q",
                "-t",
                "ed25519",
                "-N",
                "",
                "-C",
                self.name,
                "-f",
                str(folder / "id_ed25519"),
            ],
            check=True,
        )
        return (folder / "id_ed25519.pub").read_text().strip()

    def run(
        self, *arguments: str, check: bool = True, input: str = "", timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run ``gpu-dev`` with these arguments."""
        done = subprocess.run(
            [GPU_DEV, *arguments],
            env=self.environment,
            cwd=self.home,
            input=input,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check:
            assert done.returncode == 0, f"{arguments}: {done.returncode} {done.stdout} {done.stderr}"
        return done

    def json(self, *arguments: str) -> Any:
        """Run a command, and return the JSON document that it prints."""
        return json.loads(self.run(*arguments, "--json").stdout)

    def begin(self, *arguments: str) -> subprocess.Popen[str]:
        """Start ``gpu-dev`` in the background, with pipes for its output."""
        return subprocess.Popen(
            [GPU_DEV, *arguments],
            env=self.environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ssh_argv(self, *arguments: str) -> list[str]:
        """Return a command of plain OpenSSH with only this person's configuration."""
        return ["ssh", "-F", str(self.ssh_config), "-o", "BatchMode=yes", *arguments]

    def ssh(
        self, *arguments: str, check: bool = True, timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run ``ssh``; it fails instead of asking anything."""
        done = subprocess.run(
            self.ssh_argv(*arguments),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if check:
            assert done.returncode == 0, f"ssh {arguments}: {done.returncode} {done.stdout} {done.stderr}"
        return done

    def release(self, name: str) -> None:
        """Cancel or release a reservation, and wait until it has ended."""
        record = self.json("show", name)
        self.run("cancel", name, "--yes")
        self.stack.wait_state(record["id"], "ended", self.name)


People = Callable[[str], Person]
"""Find a person by name."""
