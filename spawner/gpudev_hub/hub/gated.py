"""What all our spawners do alike: ask the gate, refuse what the gate is not for, show the picker."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
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
"""The fields of the form that this request submitted: the Hub shows them again, but asks another spawner (the
default server's) for the form when the submitted one was refused."""


class Prefill(SpawnException):
    """A link brought options: the form shows them, and nothing is started."""

    def __init__(self) -> None:
        super().__init__("Shown in the form only.", reason="prefill", status_code=200)
        self.jupyterhub_message = ""


class NotStarted(Told):
    """There is no server; the service reads why, and decides what comes next."""

    reason, status_code = "not_started", 424


async def listens(host: str, port: int) -> bool:
    """Return whether a connection to an address is accepted."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True


class Gated(HasTraits):
    """Mixed into an engine's spawner, before it. ``setup.configure`` sets ``gate`` and ``profiles``, once."""

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
    """Set by a handler that stops it; JupyterHub itself leaves it unset before the first stop."""

    realm: ClassVar[str] = "local"
    """Whose user names these are: part of the owner's identity to the queue."""
    gate: ClassVar[GateClient]
    profiles: ClassVar[list[dict[str, Any]]]

    _submitted = False
    """Between the form and the start that it asks for, the Hub takes the server for one that does nothing."""

    http_timeout: Any
    _check_pending: bool
    """Of JupyterHub's Spawner: the Hub comes up and looks whether the server runs."""

    attempt = 0
    """The attempt that this Hub believes to run; 0: none known."""

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)  # type: ignore[misc] # the engine's spawner comes next
        self.attempt = int(state.get("attempt", 0))

    def get_state(self) -> dict[str, Any]:
        """What ``poll`` and ``stop`` need; the server's token stays where only the server reads it."""
        state: dict[str, Any] = super().get_state()  # type: ignore[misc]
        if self.attempt:
            state["attempt"] = self.attempt
        return state

    def clear_state(self) -> None:
        super().clear_state()  # type: ignore[misc]
        self.attempt = 0

    async def look(self) -> int | None:
        raise NotImplementedError

    async def answers(self) -> bool | None:
        """Whether the server's Jupyter accepts connections; ``None``: it is gone."""
        raise NotImplementedError

    async def poll(self) -> int | None:
        """``None`` while the server runs and whenever that can't be told; never raises.

        A Hub that comes up waits for `http_timeout` until a server answers that is said to run, and does not
        look whether it still does. So it is told only when the server answers, has ended, or has been silent
        for that long.
        """
        status = await self.look()
        try:
            async with asyncio.timeout(self.http_timeout):
                while status is None and self._check_pending and not (found := await self.answers()):
                    if found is None:
                        return 1
                    await asyncio.sleep(CHECK_AGAIN)
                    status = await self.look()
        except TimeoutError:
            pass
        return status

    @cached_property
    def _noticing(self) -> asyncio.Lock:
        return asyncio.Lock()

    async def poll_and_notify(self) -> int | None:
        """Look whether the server has ended, and have the Hub clean up after it, for one caller at a time.

        JupyterHub notifies only for the first caller who finds the server ended. A second caller, such as a
        request to start the server again, must wait for that clean-up, which would take the Hub token of the
        new server instead of the old server's.
        """
        async with self._noticing:
            status: int | None = await super().poll_and_notify()  # type: ignore[misc]
            return status

    @property
    def subject(self) -> str:
        """Who the owner is to the queue."""
        return self.subject_of(self.user)

    @classmethod
    def subject_of(cls, user: Any) -> str:
        """Who a user of the Hub is to the queue: the GitHub account noted at the login, if there is one."""
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
        """What to build; raises ``Refusal`` if there is nothing to be built (yet)."""
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
            # What a token sends along is not looked at, and the Hub would keep all of it.
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
                # No reservation has this name. The Hub works with the row until this start has failed.
                self._spawn_future.add_done_callback(lambda _: self._leave_no_row())
            raise

    def _leave_no_row(self) -> None:
        """Have the Hub forget a server that is only a name: it does not run, and no start is under way."""
        name, user = self.name, self.user
        there = user.spawners.get(name, self)
        if not name or self.active or self._submitted or there.active or there._submitted:
            return
        if user.orm_spawners.get(name) is self.orm_spawner:
            user.spawners.pop(name, None)
            user.db.delete(self.orm_spawner)
            user.db.commit()

    def _asked_by_form(self) -> bool:
        """Whether the owner himself submitted the Hub's form, with his cookie (and so past its XSRF check).

        Never a field of the options: they come unchecked over REST.
        """
        handler = self.handler
        return (
            isinstance(handler, SpawnHandler)
            and handler.request.method == "POST"
            # The Hub sets it only on requests that carry a token.
            and not getattr(handler, "_token_authenticated", False)
            and handler.current_user is self.user
        )

    async def may_stop(self) -> bool:
        """Whether this stop is meant: the Hub also stops what it merely believes to be broken.

        ``User.stop`` clears its flags before it calls ``stop``; only ``_stop_future`` tells a stop that was
        asked for from a clean-up.
        """
        return await self.gate.may_stop(self.subject, self.name, user=self._stop_future is not None)

    async def delete_forever(self) -> None:
        """Deleted in the Hub, alone or with its user. Homes stay: they are no server's."""
        if self.name:
            await self.gate.deleted(self.subject, self.name)

    async def rename(self, old_name: str, new_name: str) -> None:
        """Refused: the server's name is the reservation's id."""
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
        """The spawn page's form. The page of the default server leads to ours instead."""
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
            # Whoever looks at sizes starts nothing; the form, or the service, makes the row again.
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
        """A link may only fill in the form, never reserve."""
        raise Prefill


def _of_no_reservation(answer: PickerAnswer | None) -> bool:
    """Whether the service knows that the page's id is not (yet) a reservation of its user's."""
    return answer is not None and not (answer.location or "").startswith("reservations/")
