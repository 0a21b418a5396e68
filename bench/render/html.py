"""Makes pages from the templates of this package."""

from __future__ import annotations

import re

import jinja2
from markupsafe import Markup, escape

from bench.render.tables import unbroken

_BOLD, _EMPHASIS = re.compile(r"\*\*(.+?)\*\*"), re.compile(r"\*(\w[^*]*\w)\*")


def template(name: str) -> jinja2.Template:
    """Returns a page's template."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("bench.render"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    templates.filters["unbroken"] = unbroken
    templates.filters["marked"] = _marked
    return templates.get_template(name)


def _marked(text: str) -> Markup:
    """HTML of a text with Markdown's **bold** and *emphasis*."""
    html = _BOLD.sub(r"<strong>\1</strong>", str(escape(text)))
    return Markup(_EMPHASIS.sub(r"<em>\1</em>", html))
