"""Draws plots as SVG where there is no browser: ECharts, as the pages use it, in an engine of its own."""

import re
from importlib.util import find_spec
from pathlib import Path

from msgspec import json
from py_mini_racer import MiniRacer

from monitor.dashboard.plots import Options

_DRAW = """
    (function (text, width, height) {
        const chart = echarts.init(null, null, {renderer: "svg", ssr: true, width: width, height: height});
        chart.setOption(JSON.parse(text));
        const drawn = chart.renderToSVGString();
        chart.dispose();
        return drawn;
    })
"""

#: The module that a page imports: import{X as a,…}from"./FILE"; …
_INDEX = re.compile(r'^import\{(\w+) as \w+,.*?\}from"\./([\w.-]+)"')

#: … and at the end of that file: export{NAME as X,…}
_EXPORT = re.compile(r"export\{([^}]*)\};?\s*(?://.*)?\s*$")


class Drawing:
    """An engine that draws plots; to make one takes a quarter of a second."""

    def __init__(self) -> None:
        self._engine = MiniRacer()
        self._engine.eval(_script())

    def svg(self, options: Options, width: int, height: int) -> str:
        # The text of a text: so no name in it is taken for a part of the script.
        text = json.encode(json.encode(options).decode()).decode()
        return str(self._engine.eval(f"{_DRAW}({text}, {width}, {height})"))


def _script() -> str:
    """Returns ECharts as a script: the engine has no modules."""
    found = find_spec("nicegui")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("No module named 'nicegui'", name="nicegui")
    folder = Path(found.origin).parent / "elements" / "echart" / "dist"
    index = _INDEX.match((folder / "index.js").read_text(encoding="utf-8"))
    assert index is not None, "this version of nicegui keeps ECharts elsewhere"
    text = (folder / index[2]).read_text(encoding="utf-8")
    export = _EXPORT.search(text)
    assert export is not None
    pairs = (pair.split(" as ") for pair in export[1].split(","))
    names = {outside: inside for inside, outside in pairs}
    return f"(function () {{ {text[: export.start()]}; globalThis.echarts = {names[index[1]]}; }})()"
