"""The routes of logins, one method each."""

from __future__ import annotations

from gpudev import login_wire as wire
from gpudev.api import Api
from gpudev.errors import AccessError, NotFound


class LoginApi(Api):
    """The logins of one hub; without a token until there is one."""

    def offer(self) -> wire.LoginOffer:
        """Return how to log in. Raises `AccessError` if the hub is too old for it."""
        try:
            return self._ask(wire.LoginOffer, "GET", "login")
        except NotFound as error:
            raise AccessError(
                f"{self.url} has no login page: it runs an older version of gpudev.",
                hint=f"Log in with a password: gpu-dev login --url {self.url} --user NAME\n"
                f"Or create a token at {self.url}/hub/token and paste it to: gpu-dev login --url {self.url}"
                " --token-stdin",
                code="no_login_page",
            ) from error

    def start(self, challenge: str, device: str) -> wire.LoginCode:
        """Start a login that its user confirms in any browser."""
        body = wire.LoginCodeRequest(code_challenge=challenge, device=device)
        return self._ask(wire.LoginCode, "POST", "login/codes", body=body)

    def collect(
        self, verifier: str, *, code: str | None = None, device_code: str | None = None
    ) -> wire.LoginResult:
        """Collect the token of a login, by the code from the browser or by the code of the machine."""
        body = wire.LoginCollect(code=code, device_code=device_code, code_verifier=verifier)
        return self._ask(wire.LoginResult, "POST", "login/token", body=body)

    def nonce(self) -> wire.LoginNonce:
        return self._ask(wire.LoginNonce, "POST", "login/nonces")

    def by_signature(self, body: wire.LoginSignature) -> wire.LoginResult:
        return self._ask(wire.LoginResult, "POST", "login/signatures", body=body)

    def token_info(self) -> wire.TokenInfo | None:
        """Return what the token is; None if the hub is too old to say."""
        try:
            return self._ask(wire.TokenInfo, "GET", "login/token")
        except NotFound:
            return None

    def renew(self) -> wire.Renewal:
        """Return a successor of the token. No retries."""
        return self._once(wire.Renewal, "POST", "login/renew")

    def delete_token(self) -> None:
        self._persist(lambda: self._send("DELETE", "login/token"))
