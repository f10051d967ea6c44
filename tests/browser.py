"""A page in headless Chromium, at the widths of a desktop and a phone, as numbers."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

needs_browser = pytest.mark.skipif(
    shutil.which("chromium") is None, reason="chromium is not installed (apt install chromium)"
)
WIDTHS = (1280, 390)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --virtual-time-budget=8000 --dump-dom"
)
# Runs behind the page's own scripts; the frame's parent writes down what it is told.
PROBE = """<script>
const picture = document.getElementById("equity") || document.getElementById("history0");
const first = picture && picture.getBoundingClientRect();
parent.postMessage({
  width: innerWidth, scroll_width: document.documentElement.scrollWidth,
  first_bottom: first && first.bottom + scrollY,
  drawn: Number(document.documentElement.dataset.drawn),
  plots: document.querySelectorAll(".js-plotly-plot").length,
  loads: performance.getEntriesByType("resource").map((entry) => entry.name),
  words: document.body.innerText,
}, "*");
</script></body>"""
FRAMES = """<body><script>
addEventListener("message", (event) => {
  const line = document.createElement("pre");
  line.className = "told";
  line.textContent = JSON.stringify(event.data);
  document.body.append(line);
});
</script>%s</body>"""


def measured(page: Path, scratch: Path) -> dict[int, dict[str, Any]]:
    """Open a page in frames of both widths; return what it looks like by width, in pixels."""
    text = page.read_text(encoding="utf-8")
    head, _, tail = text.rpartition("</body>")
    probed = scratch / "probed.html"
    probed.write_text(head + PROBE + tail, encoding="utf-8")
    frames = [f'<iframe src="{probed.name}" width="{w}" height="900"></iframe>' for w in WIDTHS]
    outer = scratch / "frames.html"
    outer.write_text(FRAMES % "".join(frames), encoding="utf-8")
    result = subprocess.run(
        ["chromium", *FLAGS.split(), f"--user-data-dir={scratch / 'profile'}",
         "--allow-file-access-from-files", outer.as_uri()],
        check=True, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    told = re.findall(r'<pre class="told">(.*?)</pre>', result.stdout, re.DOTALL)
    found = [json.loads(html.unescape(text)) for text in told]
    return {one["width"]: one for one in found}


def check_page(page: Path, scratch: Path) -> dict[int, dict[str, Any]]:
    """Assert what holds for every page: a picture first, no scrolling sideways, no request."""
    found = measured(page, scratch)
    assert sorted(found) == sorted(WIDTHS)
    for width, one in found.items():
        assert one["scroll_width"] <= width, one["scroll_width"]
        assert [name for name in one["loads"] if not name.startswith("data:")] == []
        assert one["drawn"] == one["plots"] > 0
    assert found[1280]["first_bottom"] <= 900
    return found
