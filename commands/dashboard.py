"""Serves web pages about what is loaded now and what the fleet did, beside the daemon or without it."""

from collections.abc import Callable
from contextlib import closing

from config import Address, Settings, read_address
from monitor.dashboard.pages import build
from monitor.dashboard.server import bind, serve
from processing.errors import Misconfigured
from service.kept_client import KeptClient
from service.reading import Reading
from service.signals import StopSignal


def run(settings: Settings, address: str, say: Callable[[str], None]) -> int:
    """Serves until Ctrl+C or SIGTERM."""
    token, stop = settings.dashboard_token, StopSignal()
    try:
        place = read_address(address)
    except ValueError as error:
        raise Misconfigured(f"the address {address}: {error}") from None
    with (
        bind(place, has_token=token is not None) as listener,
        stop.on_signals(),
        Reading(settings, stop.event.is_set) as reading,
        closing(KeptClient(settings.s3_endpoint_url)) as client,
    ):
        say(f"The dashboard is at http://{Address(place.host, listener.getsockname()[1])}/; Ctrl+C ends it.")
        serve(build(settings, reading, client, token), listener, stop.event.is_set)
    return 0
