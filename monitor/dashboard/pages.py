"""The application: the two pages, and who gathers what they show."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from fastapi import FastAPI, Request
from nicegui import ui
from starlette.responses import Response
from starlette.types import ASGIApp

from config import Settings
from monitor.dashboard import fleet, fleet_page, now_page
from monitor.dashboard.guard import Guard
from monitor.dashboard.live import Live
from service.kept_client import KeptClient
from service.reading import Reading


def build(settings: Settings, reading: Reading, client: KeptClient, token: str | None) -> ASGIApp:
    """Builds the application; it gathers while it is served."""
    live = Live(settings, reading, client)

    @asynccontextmanager
    async def gathering(app: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(live.run())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    app = FastAPI(lifespan=gathering, openapi_url=None, docs_url=None, redoc_url=None)

    @ui.page("/", title="Now · Mobileye")
    def show_now(request: Request) -> None:
        now_page.show(request, live)

    @ui.page(fleet.PATH, title="Fleet · Mobileye")
    async def show_fleet(request: Request) -> Response | None:
        return await fleet_page.show(request, reading)

    ui.run_with(
        app, dark=None, tailwind=False, show_welcome_message=False, favicon="🚙", reconnect_timeout=10
    )
    return Guard(app, token)
