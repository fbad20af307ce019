"""The help page and the download of the client, also for users who are not logged in."""

from __future__ import annotations

from gpudev_hub.core.errors import Code, Refused

from . import page_view
from .base import BaseHandler
from .client_wheel import client_wheel
from .page import Page


class Help(Page):
    """``/help``: what the states mean, how to start, how to get ``gpu-dev``, whom to ask."""

    here = "help"

    async def prepare(self) -> None:
        """Find out who asks, for the navigation. No login is needed, and the Hub may not answer."""
        try:
            self.identity = await self.identify()
        except Refused:
            self.identity = None

    async def get(self) -> None:
        self.show(
            "help.html",
            wheel=client_wheel().name,
            address=self.site.settings.public_url.rstrip("/"),
            states=page_view.MEANINGS,
            contact=self.site.settings.contact,
        )


class ClientDownload(BaseHandler):
    """``/client/NAME.whl``: the client in the version of this hub, for ``pip``, which has no token."""

    async def get(self, name: str) -> None:
        """Raise ``Refused`` if this hub has another version."""
        wheel = client_wheel()
        if name != wheel.name:
            raise Refused(Code.NOT_FOUND, f"This hub offers {wheel.name}, not {name}.", "See the help page.")
        self.set_header("Content-Type", "application/zip")
        self.finish(wheel.content)

    head = get
