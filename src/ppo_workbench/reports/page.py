"""Self-contained HTML pages: a template, its figures and plotly.js in one file.

A page asks for nothing: its content security policy forbids every request, so it opens from
a disk, from a mail and as an artefact of a record.  jinja2 and plotly are imported on first
use.  A template extends `page.html.jinja` and calls its `draw`.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def assemble_page(template: Path, figures: Mapping[str, object], **context: Any) -> str:
    """Return the page of a template; everything in `context` is escaped by it.

    Args:
        template: A jinja2 template that extends `page.html.jinja`.
        figures: Plotly figures by the id of their element, plain dictionaries.
        context: What the template names.

    Raises:
        ValueError: A number in a figure is not finite.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=FileSystemLoader([template.parent, HERE]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["embedded"] = _embedded
    return environment.get_template(template.name).render(
        figures=figures, plotly_js=Markup(get_plotlyjs()), **context
    )


def _embedded(value: object) -> Any:
    """Return JSON for a script element: a `</script>` in a text must not end it."""
    from markupsafe import Markup

    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c"))
