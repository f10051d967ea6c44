"""The report of a promotion: promotion.json for scripts, a table for people, both from one dict."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TEMPLATE = Path(__file__).with_name("promotion.html.jinja")


def write_reports(folder: Path, document: Mapping[str, Any]) -> None:
    """Write promotion.json and promotion.html into the folder of a promotion."""
    from jinja2 import Environment, StrictUndefined

    text = json.dumps(document, indent=2, allow_nan=False)
    (folder / "promotion.json").write_text(text, encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"number": _number, "figure": _figure}
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    html = page.render(document, headline=headline(document))
    (folder / "promotion.html").write_text(html, encoding="utf-8")


def headline(document: Mapping[str, Any]) -> str:
    """Say in one sentence what a promotion came to."""
    gates = document["gates"]
    refusing = sum(not gate["passed"] for gate in gates)
    winner = document["winner"]
    what = f"trial {winner['trial']} of {document['study']}, seed {winner['seed']}"
    if document["promoted"]:
        return f"{what} is the champion {document['name']}: all {len(gates)} gates pass"
    return f"{what} is not promoted: {refusing} of {len(gates)} gates refuse"


def describe(document: Mapping[str, Any]) -> str:
    """Return the verdicts as plain lines, what refuses first."""
    lines = [headline(document)]
    for gate in sorted(document["gates"], key=lambda gate: bool(gate["passed"])):
        power = gate["power"]
        told = "" if power is None else f" (power {power:.0%} at {gate['alternative']})"
        lines.append(
            f"{'pass' if gate['passed'] else 'FAIL'} {gate['name']}: {gate['reason']}{told}"
        )
    return "\n".join(lines)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _figure(value: float | None, unit: str) -> str:
    """Return a figure of the scorecard in its unit."""
    if value is None:
        return "-"
    return f"{value:.1%}" if unit == "%" else _number(round(value, 2))
