"""What the spawners of all engines share: they ask the gate before each start, and show the picker."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from functools import cached_property
from typing import Any, ClassVar, Final

from jupyterhub.handlers.pages import SpawnHandler
from jupyterhub.spawner import Spawner, SpawnException
from tornado import web
from traitlets import HasTraits, default

from gpudev_hub.core.gate import AdmitRequest, Launch, PickerAnswer, PickerAsked, Verdict
from gpudev_hub.settings import SERVICE

from .gate import GateClient, Refusal, Told
from .options import FIELDS, options_from_form
from .picker import readable_hours, render_picker

CHECK_AGAIN: Final = 0.1
"""Seconds between two looks at a server that starts while the Hub comes up."""

submitted: ContextVar[dict[str, str] | None] = ContextVar("submitted", default=None)
"""The fields of the form in this request. If it is refused, the Hub shows them again, but asks the spawner of
the default server for the form."""


class Prefill(SpawnException):
    """A link has options: the form shows them, and nothing is started."""

    def __init__(self) -> None:
        super().__init__("Shown in the form only.", reason="prefill", status_code=200)
        self.jupyterhub_message = ""


class NotStarted(Told):
    """The server could not be started; the service reads why and decides what to do."""

    reason, status_code = "not_started", 424


class Gated(HasTraits):
    """A mix-in before an engine's spawner class. ``setup.configure`` sets ``gate`` and ``profiles``."""

    # Of JupyterHub's Spawner.
    name: str
    user: Any
    hub: Any
    handler: Any
    user_options: dict[str, Any]
    orm_spawner: Any
    active: bool
    _spawn_future: Any
    _stop_future: Any = None
    """Set by a handler that stops the server; JupyterHub does not define it before the first stop."""

    realm: ClassVar[str] = "local"
    """First part of the owner's subject."""
    gate: ClassVar[GateClient]
    profiles: ClassVar[list[dict[str, Any]]]

    _submitted = False
    """Whether a form was submitted and its start has not begun; to the Hub, the server is inactive then."""

    http_timeout: Any
    _check_pending: bool
    """Of JupyterHub's Spawner: the Hub comes up and looks whether the server runs."""

    attempt = 0
    """The attempt that this Hub believes to run; 0: unknown."""

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)  # type: ignore[misc] # the engine's spawner comes next
        self.attempt = int(state.get("attempt", 0))

    def get_state(self) -> dict[str, Any]:
        """Return what ``poll`` and ``stop`` need, without the server's token."""
        state: dict[str, Any] = super().get_state()  # type: ignore[misc]
        if self.attempt:
            state["attempt"] = self.attempt
        return state

    def clear_state(self) -> None:
        super().clear_state()  # type: ignore[misc]
        self.attempt = 0

    async def look(self) -> int | None:
        """Return an exit code; ``None`` while the server runs or its state is unknown. Never raises."""
        raise NotImplementedError

    async def answers(self) -> bool | None:
        """Return whether JupyterLab accepts connections; ``None``: it is gone."""
        raise NotImplementedError

    async def poll(self) -> int | None:
        """As ``look``, for the Hub.

        A Hub that starts waits up to `http_timeout` for each running server to answer, even if it has ended
        meanwhile. So this returns once the server answers, has ended, or has been silent for that long.
        """
        status = await self.look()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.http_timeout):
                while status is None and self._check_pending and not (found := await self.answers()):
                    if found is None:
                        return 1
                    await asyncio.sleep(CHECK_AGAIN)
                    status = await self.look()
        return status

    @cached_property
    def _noticing(self) -> asyncio.Lock:
        return asyncio.Lock()

    async def poll_and_notify(self) -> int | None:
        """Look whether the server has ended, and let the Hub clean up after it, for one caller at a time.

        JupyterHub cleans up only for the first caller who finds the server ended. Others, such as a new
        start, must wait: else the clean-up would revoke the new server's token instead of the old one's.
        """
        async with self._noticing:
            status: int | None = await super().poll_and_notify()  # type: ignore[misc]
            return status

    @property
    def subject(self) -> str:
        """The owner's subject."""
        return self.subject_of(self.user)

    @classmethod
    def subject_of(cls, user: Any) -> str:
        """Return the subject of a user of the Hub: the GitHub account of their login, if there is one."""
        account = (user.user_info or {}).get("github_id")
        return f"{cls.realm}:{user.name}" if account is None else f"github:{account}"

    @property
    def login(self) -> str:
        return str((self.user.user_info or {}).get("login") or self.user.name)

    @property
    def _base(self) -> str:
        return str(self.hub.base_url).removesuffix("hub/")

    def _page(self, path: str) -> str:
        return f"{self._base}services/{SERVICE}/{path}"

    async def admitted(self) -> Launch:
        """Return what to start. Raises ``Refusal`` if nothing is to be started (yet)."""
        self._submitted = False
        if not self.name:
            raise Refusal(
                403,
                "This hub has no default server: each server belongs to a reservation.",
                reason="default_server",
                hint="Make a reservation on the Reservations page.",
                location=self._page(""),
            )
        form = self._asked_by_form()
        if not form:
            # Options over REST are not used, and the Hub would store all of them.
            self.user_options = self.orm_spawner.user_options = {}
        request = AdmitRequest(
            subject=self.subject,
            hub_user=self.user.name,
            login=self.login,
            server=self.name,
            form=form,
            options=dict(self.user_options) if form and self.user_options else None,
        )
        page = self._page(f"reservations/{self.name}")
        try:
            return await self.gate.admit(request, page=page, base=self._base)
        except Refusal as refused:
            useless = refused.reason in (Verdict.REDIRECT, Verdict.INVALID, Verdict.FORBIDDEN)
            if useless and self._spawn_future is not None:
                # No reservation has this name. The Hub needs the row until this start has failed.
                self._spawn_future.add_done_callback(lambda _: self._leave_no_row())
            raise

    def _leave_no_row(self) -> None:
        """Remove the Hub's row of a server that neither runs nor starts."""
        name, user = self.name, self.user
        there = user.spawners.get(name, self)
        if not name or self.active or self._submitted or there.active or there._submitted:
            return
        if user.orm_spawners.get(name) is self.orm_spawner:
            user.spawners.pop(name, None)
            user.db.delete(self.orm_spawner)
            user.db.commit()

    def _asked_by_form(self) -> bool:
        """Return whether the owner submitted the Hub's form with their cookie, which passed the XSRF check.

        The options cannot say that, because REST requests can contain any options.
        """
        handler = self.handler
        return (
            isinstance(handler, SpawnHandler)
            and handler.request.method == "POST"
            # The Hub sets it only on requests with a token.
            and not getattr(handler, "_token_authenticated", False)
            and handler.current_user is self.user
        )

    async def may_stop(self) -> bool:
        """Return whether the service allows this stop: the Hub also stops servers that seem broken to it.

        Only ``_stop_future`` shows that somebody asked for the stop: ``User.stop`` clears its other flags
        before it calls ``stop``.
        """
        return await self.gate.may_stop(self.subject, self.name, user=self._stop_future is not None)

    async def delete_forever(self) -> None:
        """Tell the service that the server was deleted in the Hub, alone or with its user. Homes stay."""
        if self.name:
            await self.gate.deleted(self.subject, self.name)

    async def rename(self, old_name: str, new_name: str) -> None:
        """Refuse it: the name of a server is the id of its reservation."""
        raise web.HTTPError(
            403, f"Server {old_name} cannot be renamed to {new_name}: its name is the id of its reservation."
        )

    @default("options_form")
    def _default_options_form(self) -> Any:
        return self.show_picker

    @default("options_from_form")
    def _default_options_from_form(self) -> Any:
        return self.read_form

    async def show_picker(self, _: Spawner) -> str:
        """Return the form of the spawn page; the default server's page redirects to ``new``."""
        handler = self.handler
        asked = (
            isinstance(handler, SpawnHandler) and handler.request.method == "GET" and not handler._finished
        )
        prefill = submitted.get() or {}
        hours = prefill.get("hours", "")
        if asked:
            assert handler is not None
            if not self.name:
                handler.redirect(self._page("new"), status=303)
                raise web.Finish
            prefill = {name: handler.get_query_argument(name, "") for name in FIELDS}
            hours = prefill["hours"]
        ask = PickerAsked(self.subject, self.login, self.name, readable_hours(hours))
        answer = await self.gate.picker(ask)
        if asked and (self.orm_spawner.last_activity is None or _of_no_reservation(answer)):
            # Looking at sizes starts nothing. The form, or the service, creates the row again.
            self._leave_no_row()
        if asked and answer is not None and answer.location is not None:
            assert handler is not None
            handler.redirect(self._page(answer.location), status=303)
            raise web.Finish
        return render_picker(self.profiles, answer, prefill)

    def read_form(self, form: Mapping[str, Sequence[str]]) -> dict[str, Any]:
        submitted.set({name: values[-1] for name, values in form.items() if values})
        try:
            options = options_from_form(form, self.profiles)
        except Exception:
            self._leave_no_row()
            raise
        self._submitted = True
        return options

    async def options_from_query(self, _: dict[str, list[str]]) -> dict[str, Any]:
        """Let a link fill in the form, but never reserve."""
        raise Prefill


def _of_no_reservation(answer: PickerAnswer | None) -> bool:
    """Return whether the service says that the user has no reservation with the page's id."""
    return answer is not None and not (answer.location or "").startswith("reservations/")
