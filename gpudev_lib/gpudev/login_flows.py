"""Logins without a password: in the browser, by a code to type, or with an SSH key."""

from __future__ import annotations

import base64
import hashlib
import secrets
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

from gpudev import config, sshkeys
from gpudev import login_wire as wire
from gpudev.errors import AccessError, GpuDevError, InvalidRequest, NotLoggedIn
from gpudev.foreign import plain
from gpudev.login_api import LoginApi
from gpudev.loopback import Loopback

PATIENCE = 600.0
"""Seconds to wait for the answer from the browser."""
MOST_KEYS = 6
"""SSH keys to try."""
_SIGNING = 120.0
"""Timeout of ssh-keygen in seconds: a key can ask for a passphrase or a touch."""


class Login:
    """One login to the hub at `url`. `tell` is called with lines of text for the user."""

    def __init__(self, url: str, tell: Callable[[str], None]) -> None:
        self._api = LoginApi(url, "", tell=tell)
        self._url = url
        self._tell = tell
        self._device = plain(socket.gethostname())[:64]
        """Name of this machine, for the page."""

    def in_browser(self, open_page: Callable[[str], bool], patience: float = PATIENCE) -> wire.LoginResult:
        """Have the user confirm in the browser of this machine. `open_page` opens an address there."""
        self._api.offer()
        verifier, challenge = new_proof()
        state = secrets.token_urlsafe(24)
        try:
            loopback = Loopback(state)
        except OSError:
            self._tell("This machine has no loopback address for the browser's answer.")
            return self.by_code()
        with loopback:
            query = {
                "redirect_uri": loopback.redirect_uri,
                "state": state,
                "code_challenge": challenge,
                "code_challenge_method": wire.METHOD,
                "device": self._device,
            }
            page = f"{self._url}/services/gpudev/{wire.PAGE}?{urlencode(query)}"
            opened = open_page(page)
            self._tell("Confirm the login in your browser." if opened else "Open this page in your browser:")
            if not opened:
                self._tell(page)
            code = loopback.wait(patience)
        return self._api.collect(verifier, code=code)

    def by_code(self, sleep: Callable[[float], None] = time.sleep) -> wire.LoginResult:
        """Have the user type a code on the page of the hub, in any browser."""
        self._api.offer()
        verifier, challenge = new_proof()
        started = self._api.start(challenge, self._device)
        self._tell(f"Open {started.page} in any browser and type the code {started.user_code}")
        self._tell(f"The code is valid for {started.expires_in // 60} minutes.")
        until = time.monotonic() + started.expires_in
        interval = started.interval
        while time.monotonic() < until:
            sleep(interval)
            result = self._api.collect(verifier, device_code=started.device_code)
            if result.status == "granted":
                return result
            interval = max(interval, result.interval or 0)
        raise NotLoggedIn(
            f"Nobody confirmed the login within {started.expires_in // 60} minutes.",
            hint="Start again with: gpu-dev login --no-browser",
        )

    def by_key(self, account: str, key: Path | None = None) -> wire.LoginResult:
        """Log in with an SSH key of the account: `key`, else the keys in ``~/.ssh`` that need no passphrase.

        The signed text contains the address of the hub, so that no other hub can use the signature.
        """
        self._api.offer()
        keys = [key] if key is not None else usable_keys(config.home() / ".ssh")
        if not keys:
            raise AccessError(
                "No SSH key in ~/.ssh can sign without a passphrase.",
                hint="Add your key to the agent with ssh-add, or name it: gpu-dev login --ssh --key FILE",
                code="no_key",
            )
        refusal: NotLoggedIn | None = None
        for path in keys[:MOST_KEYS]:
            nonce = self._api.nonce()
            text = wire.statement(self._url, account, nonce.nonce, nonce.expires_at)
            body = wire.LoginSignature(
                account=account,
                hub=self._url,
                nonce=nonce.nonce,
                expires_at=nonce.expires_at,
                signature=sign(path, text),
                device=self._device,
            )
            try:
                return self._api.by_signature(body)
            except NotLoggedIn as error:
                refusal = error
        assert refusal is not None
        names = ", ".join(str(path) for path in keys[:MOST_KEYS])
        raise NotLoggedIn(
            f"{self._url} accepts none of these SSH keys for the account {account}: {names}.",
            hint=f"{refusal.hint}\nLog in with a browser: gpu-dev login --url {self._url}",
        )


def new_proof() -> tuple[str, str]:
    """Return a new PKCE verifier, and its challenge (RFC 7636, S256)."""
    verifier = secrets.token_urlsafe(48)
    digest = hashlib.sha256(verifier.encode()).digest()
    return verifier, base64.urlsafe_b64encode(digest).decode().rstrip("=")


def usable_keys(folder: Path) -> list[Path]:
    """Return the SSH keys in `folder` that sign without a prompt: those in the agent come first."""
    held = sshkeys.agent_keys()
    public = [*sorted((folder / "gpudev").glob("*.pub")), *sorted(folder.glob("*.pub"))]
    found = [path.with_suffix("") for path in public]
    in_agent = [path for path in found if sshkeys.fingerprint_of(path) in held]
    return in_agent + [path for path in found if path not in in_agent and sshkeys.usable(path)]


def sign(key: Path, text: bytes) -> str:
    """Return a signature by ``ssh-keygen -Y sign``, which uses the agent if it holds the key.

    Raises `InvalidRequest` if there is no such key, and `GpuDevError` if it cannot sign.
    """
    public = sshkeys.public(key)
    if not key.exists() and not public.exists():
        raise InvalidRequest(f"There is no SSH key {key}.", hint="Name a key with: --key FILE")
    # With the public key, ssh-keygen asks the agent.
    in_agent = sshkeys.fingerprint_of(key) in sshkeys.agent_keys()
    arguments = ("-Y", "sign", "-n", wire.NAMESPACE, "-f", str(public if in_agent else key))
    try:
        done = sshkeys.ssh_keygen(*arguments, given=text, timeout=_SIGNING)
    except subprocess.TimeoutExpired as error:
        raise GpuDevError(
            f"The SSH key {key} did not sign within {_SIGNING:.0f} s.", code="no_signature"
        ) from error
    if done.returncode != 0:
        said = plain(done.stderr.decode("utf-8", "replace")).strip()
        raise GpuDevError(f"The SSH key {key} cannot sign: {said}", code="no_signature")
    return done.stdout.decode("ascii", "replace")
