"""The frame of every page: its head with the links, the theme, and cards to put things into."""

from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import Request
from nicegui import ui

from monitor.dashboard import markup
from monitor.dashboard.plots import Options

#: Themes by their names in the cookie: what Quasar is told (None: as the system has it), and the next one.
_THEMES: dict[str, tuple[bool | None, str]] = {
    "auto": (None, "light"),
    "light": (False, "dark"),
    "dark": (True, "auto"),
}
_COOKIE = "mobileye_theme"
_TABS = {"/": "Now", "/fleet": "Fleet"}


@contextmanager
def framed(request: Request, here: str) -> Iterator[None]:
    """Yields within the page, below its head."""
    ui.add_head_html(f"<style>{markup.STYLE}</style>")
    ui.context.client.content.classes(replace="page")
    with ui.element("header").classes("top"):
        ui.label("Mobileye").classes("brand")
        with ui.element("nav").style("display: contents"):
            for path, name in _TABS.items():
                ui.link(name, path).classes("tab here" if path == here else "tab")
        _theme_button(request)
    yield


def _theme_button(request: Request) -> None:
    chosen = request.cookies.get(_COOKIE, "auto")
    dark = ui.dark_mode(_THEMES.get(chosen, _THEMES["auto"])[0])

    def switch() -> None:
        nonlocal chosen
        chosen = _THEMES.get(chosen, _THEMES["auto"])[1]
        dark.value = _THEMES[chosen][0]
        label.set_text(f"theme: {chosen}")
        ui.run_javascript(f"document.cookie = '{_COOKIE}={chosen};path=/;max-age=31536000;samesite=lax'")

    with ui.element("button").on("click", switch).props('type=button aria-label="switch the theme"'):
        label = ui.label(f"theme: {chosen if chosen in _THEMES else 'auto'}")


@contextmanager
def card(title: str, sub: str = "", size: str = "") -> Iterator[ui.element]:
    """Yields a card with its title, and what it says of units below that."""
    with ui.element("section").classes(f"card {size}") as element:
        with ui.element("h2"):
            ui.label(title)
        if sub:
            ui.label(sub).classes("sub")
        yield element


def plot(options: Options, size: str = "") -> ui.echart:
    # As SVG: a style can give its texts the colours of the theme.
    return ui.echart(options, renderer="svg").classes(f"plot {size}")


class Shown:
    """A part of a page as HTML; it is touched only when it changes, so that one can select text in it."""

    def __init__(self, html: str = "", classes: str = "") -> None:
        self._element = ui.html(html).classes(classes)

    def show(self, html: str) -> None:
        if html != self._element.content:
            self._element.set_content(html)
