"""The explorer: a page of plain HTML, CSS and JavaScript, served by ``http_server`` or written as one file.

The page asks nothing but its own origin. As one file it holds an explanation and asks nothing at all.
"""

import html
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from types import MappingProxyType

_TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_STYLE = "explorer.css"
_MODULES = (  # each imports only from those before it
    "text.js",
    "service.js",
    "reading.js",
    "drawing.js",
    "edition.js",
    "word.js",
    "parts.js",
    "what-if.js",
    "state.js",
    "link.js",
    "matrix.js",
    "page.js",
    "asking.js",
    "explorer.js",
)
_REPORT_MODULES = ("text.js", "reading.js", "drawing.js", "edition.js", "report.js")
_ROWS = "<!-- rows -->"
_IMPORT = re.compile(r"^import [^;]+;\n", re.MULTILINE)
_EXPORT = re.compile(r"^export ", re.MULTILINE)
# An explanation that somebody sent may hold anything: whatever it holds, the file loads nothing and tells nobody.
_ALONE = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"


def _read(name: str) -> str:
    return (files(__name__) / name).read_text("utf-8")


def _script(modules: Sequence[str]) -> str:
    """Return modules as one, each importing only from those before it."""
    return "\n".join(_EXPORT.sub("", _IMPORT.sub("", _read(name))) for name in modules)


def _served(name: str) -> tuple[bytes, str]:
    return _read(name).encode(), _TYPES[name.rpartition(".")[2]]


FILES: Mapping[str, tuple[bytes, str]] = MappingProxyType(
    {"/": _served("index.html"), **{f"/{name}": _served(name) for name in (_STYLE, "favicon.svg", *_MODULES)}}
)
"""What to serve: route to content and its media type."""


def standalone(explanation_json: str, title: str) -> str:
    """Return the page as one HTML file that shows one explanation, read only and without a network.

    Args:
        explanation_json: An ExplainResponse in the proto's JSON mapping, its matrices packed or listed; at least its
            alignment and its scores must have been asked for.
        title: Of the document; plain text.
    """
    for character in "<>&\u2028\u2029":  # inside JSON they occur in strings only, where \u means the same
        explanation_json = explanation_json.replace(character, f"\\u{ord(character):04x}")
    replacements = {
        "<title>Interlinear</title>": f"<title>{html.escape(title)}</title>",
        '<link rel="icon" href="favicon.svg">\n': f'<meta http-equiv="Content-Security-Policy" content="{_ALONE}">\n',
        f'<link rel="stylesheet" href="{_STYLE}">': f"<style>\n{_read(_STYLE)}</style>",
        '<script type="module" src="explorer.js"></script>': (
            f'<script type="application/json" id="explanation">{explanation_json}</script>\n'
            f'<script type="module">\n{_script(_MODULES)}</script>'
        ),
    }
    page = _read("index.html")
    for old, new in replacements.items():
        page = page.replace(old, new)
    return page


def report_page(fields: Mapping[str, str]) -> tuple[str, str]:
    """Return what stands before and after the rows of a report, which is one HTML file without a network as well.

    Args:
        fields: What ``report.html`` leaves open, in HTML.
    """
    before, after = _read("report.html").split(_ROWS)
    known = {"policy": _ALONE, "style": _read(_STYLE) + _read("report.css"), "script": _script(_REPORT_MODULES)}
    return before.format(**fields, **known), after.format(**fields, **known)
