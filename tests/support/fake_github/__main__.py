"""Run the fake GitHub in the foreground."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

from .organisation import DEFAULT, make_github


def main() -> None:
    """Serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(prog="fake_github", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="on loopback; 0: any free port")
    parser.add_argument("--organisation", type=Path, default=DEFAULT, help="JSON file with the accounts")
    parser.add_argument("--folder", type=Path, help="keep the App's secrets here and write github.json")
    parser.add_argument("--callback", action="append", default=[], help="callback URL (repeatable)")
    parser.add_argument("--hook", default="", help="webhook URL of the App")
    asked = parser.parse_args()
    # Block the signals before the server's thread starts, because the thread inherits this mask.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    github = make_github(
        asked.organisation, port=asked.port, folder=asked.folder, callback_urls=asked.callback
    )
    github.control.app(hook_url=asked.hook)
    github.start()
    print(f"fake GitHub at {github.url}", flush=True)
    for account in github.state.accounts.values():
        print(f"  {account.login:12} {account.name}", flush=True)
    signal.sigwait((signal.SIGINT, signal.SIGTERM))
    github.stop()


if __name__ == "__main__":
    main()
