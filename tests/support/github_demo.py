"""``make run GITHUB=fake``: the hub of this machine, with a fake GitHub for logins."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

from fake_github import FakeGithub, make_github
from gpudev_hub.settings import Settings, SettingsError

BAD_SETTING = 10


def main() -> int:
    """Run both until the hub ends; return its exit code."""
    environment = dict(os.environ)
    for name in ("GPUDEV_GITHUB", "PYTHONPATH"):
        environment.pop(name, None)
    if not environment.get("GPUDEV_STATE"):
        home = Path(environment.get("HOME") or Path.home())
        states = Path(environment.get("XDG_STATE_HOME") or home / ".local" / "state")
        # A hub whose users log in with passwords has other users.
        environment["GPUDEV_STATE"] = str(states / "gpudev-github")
    try:
        settings = Settings.read(environment)
    except SettingsError as error:
        print(f"gpudev-hub: {error}", file=sys.stderr)
        return BAD_SETTING
    # The App keeps its key and secrets, so that nobody has to log in again after a restart.
    folder = settings.state.with_name(f"{settings.state.name}-app")
    github = make_github(folder=folder, callback_urls=[f"{settings.url}/hub/oauth_callback"])
    github.start()
    print(announcement(github), flush=True)
    environment["GPUDEV_GITHUB"] = str(folder / "github.json")
    hub = subprocess.Popen([str(Path(sys.executable).parent / "gpudev-hub")], env=environment)

    def pass_on(number: int, _: FrameType | None) -> None:
        hub.send_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, pass_on)
    code = hub.wait()
    github.stop()
    return code


def announcement(github: FakeGithub) -> str:
    """Return the text that lists GitHub's accounts."""
    accounts = "\n".join(f"  {account.login:8} {account.name}" for account in github.state.accounts.values())
    return (
        f"fake GitHub: {github.url}\n"
        f"  Its accounts, none of which has a password:\n{accounts}\n"
        f"  To see an outage: curl -X POST {github.url}/_control/outage, and .../_control/heal to end it"
    )


if __name__ == "__main__":
    sys.exit(main())
