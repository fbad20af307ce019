"""SSH keys of people, from GitHub's public lists.

Connections read the stored lists, so connections with unknown keys cost no request. GitHub is asked
regularly, when owners look at their SSH settings, and once for a person without a stored list.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from gpudev_hub.core.model import MINUTE, SECOND, Millis, Owner
from gpudev_hub.core.ports import MembershipUnavailable
from gpudev_hub.server import private
from gpudev_hub.ssh.keys import PublicKey, RefusedKey, judge

from .github import GithubClient, GithubUnavailable
from .membership import GithubMembership

log = logging.getLogger(__name__)

MAX_KEYS = 500
"""Most keys used of one account; sshd tries them one by one."""
_PREFIX = "github:"
_AGAIN: Millis = MINUTE
"""Least time between two requests for one person's keys that people cause."""
_RETRY: Millis = 10 * SECOND
"""The same after a failure, for a person without a stored list, who cannot connect until then."""
_PATIENCE = 3
"""Seconds that a page of an owner waits for GitHub."""


class _Keys(msgspec.Struct, frozen=True):
    """The last good list of one account."""

    login: str
    accepted: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]


class GithubKeys:
    """A ``KeyDirectory`` with the keys that GitHub shows for the number of an account."""

    def __init__(self, client: GithubClient, file: Path, *, now: Callable[[], Millis]) -> None:
        """``file``: stores the last good lists, so that a restart during an outage locks nobody out."""
        self._client = client
        self._membership = GithubMembership(client)
        self._file = file
        self._now = now
        self._kept = self._load()
        self._next: dict[str, Millis] = {}
        self._looking: dict[str, asyncio.Lock] = {}
        self._looks: set[asyncio.Task[None]] = set()

    async def keys(self, owner: Owner) -> list[PublicKey]:
        """Return the last good list. GitHub is asked only if there has never been one."""
        if owner.subject not in self._kept:
            await self._look(owner.subject)
        kept = self._kept.get(owner.subject)
        return [] if kept is None else list(_parse(kept.accepted))

    def known(self, owner: Owner) -> bool:
        """Return whether GitHub has ever answered about this person."""
        return owner.subject in self._kept

    async def rejected(self, owner: Owner) -> list[RefusedKey]:
        """Return the keys that open nothing, after asking GitHub at most once a minute."""
        look = asyncio.create_task(self._look(owner.subject))
        self._looks.add(look)
        look.add_done_callback(self._looks.discard)
        # The page does not wait longer for GitHub: the request continues in the background.
        await asyncio.wait({look}, timeout=_PATIENCE)
        kept = self._kept.get(owner.subject)
        return [] if kept is None else [RefusedKey(summary, reason) for summary, reason in kept.refused]

    async def identity_file(self, owner: Owner) -> Path | None:  # noqa: ARG002
        """Return ``None``: everybody has keys of their own."""
        return None

    async def refresh(self, subjects: Iterable[str]) -> None:
        """Update the keys of these people, and drop all others. Never raises.

        Without people, nothing is dropped: the service may not have read its state yet.
        """
        wanted = set(subjects)
        if not wanted:
            return
        if not self._kept.keys() <= wanted:
            self._kept = {subject: kept for subject, kept in self._kept.items() if subject in wanted}
            await self._save()
        for known in (self._next, self._looking):
            for subject in known.keys() - wanted:
                del known[subject]
        for subject in sorted(wanted):
            self._next.pop(subject, None)
            try:
                await self._look(subject)
            except Exception:
                # An error with one person must not prevent the update of the others.
                log.exception("the SSH keys of %s stay as they were", subject)

    async def _look(self, subject: str) -> None:
        """Ask GitHub, unless it was asked a moment ago. A failure keeps the last good list."""
        number = subject.removeprefix(_PREFIX)
        if number == subject or not number.isdecimal():
            return
        async with self._looking.setdefault(subject, asyncio.Lock()):
            now = self._now()
            if now < self._next.get(subject, now):
                return
            self._next[subject] = now + _AGAIN
            try:
                found = await self._fetch(int(number))
            except MembershipUnavailable as error:
                if subject not in self._kept:
                    self._next[subject] = now + _RETRY
                log.warning("the SSH keys of %s stay as they were: %s", subject, error)
                return
            if found != self._kept.get(subject):
                self._kept[subject] = found
                await self._save()

    async def _fetch(self, id: int) -> _Keys:
        """Return the account's keys, by its login, which must not change meanwhile."""
        account = await self._membership.account(id)
        if account is None:
            return _Keys("", (), ())
        listed = await self._client.pages(f"/users/{account.login}/keys")
        if listed is None or await self._membership.account(id) != account:
            # Login and keys may belong to another person now.
            raise GithubUnavailable(f"the GitHub account {id} changed its login during the check")
        lines = [_line(entry) for entry in listed]
        accepted, refused = judge("\n".join(lines[:MAX_KEYS]))
        over = judge("\n".join(lines[MAX_KEYS:]))[0]
        reasons = [(key.summary, key.reason) for key in refused]
        reasons += [
            (f"{key.type} {key.fingerprint}", f"only the first {MAX_KEYS} keys of an account are used")
            for key in over
        ]
        return _Keys(account.login, tuple(key.line for key in accepted), tuple(reasons))

    def _load(self) -> dict[str, _Keys]:
        try:
            return msgspec.json.decode(self._file.read_bytes(), type=dict[str, _Keys])
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            log.warning(
                "the saved SSH keys in %s cannot be read and are fetched again: %s", self._file, error
            )
            return {}

    async def _save(self) -> None:
        """Save the lists for the next start. A full disk affects no connection now."""
        try:
            await asyncio.to_thread(self._write, msgspec.json.encode(self._kept))
        except OSError as error:
            log.warning("the SSH keys cannot be saved in %s: %s", self._file, error)

    def _write(self, data: bytes) -> None:
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        private.write(self._file, data, durable=True)


async def keep_fresh(keys: GithubKeys, people: Callable[[], Iterable[str]], period: Millis) -> None:
    """Update the keys of ``people`` once every ``period``, until cancelled."""
    while True:
        await keys.refresh(people())
        await asyncio.sleep(period / SECOND)


@lru_cache(maxsize=4096)
def _parse(accepted: tuple[str, ...]) -> tuple[PublicKey, ...]:
    """Check stored keys again: a line in a file alone must not open a server."""
    return tuple(judge("\n".join(accepted))[0])


def _line(entry: Any) -> str:
    """Return a key's text on one line, whatever it contains."""
    text = entry.get("key") if isinstance(entry, dict) else None
    return " ".join(text.split("\n")) if isinstance(text, str) else "?"
