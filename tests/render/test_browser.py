"""What a reader sees of the committed reports: on a phone and a screen, in light and dark.

Headless Chromium lays each report out in a frame of the width, and a script measures it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
REPORTS = sorted((ROOT / "reports" / "reference").glob("*/*/report.html"))
WIDTHS = (360, 1400)
PAPER = {"light": (255, 255, 255), "dark": (15, 17, 19)}
OPTIONS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--hide-scrollbars", "--allow-file-access-from-files", "--virtual-time-budget=20000"),
]

MEASURE = """
function rgb(colour) { return colour.match(/[0-9.]+/g).slice(0, 3).map(Number); }
function measured(frame) {
  const doc = frame.contentDocument, win = frame.contentWindow, width = frame.clientWidth;
  const all = selector => [...doc.querySelectorAll(selector)];
  const box = element => element.getBoundingClientRect();
  const lines = element => {
    const range = doc.createRange(); range.selectNodeContents(element);
    return new Set([...range.getClientRects()].map(each => Math.round(each.top))).size;
  };
  const found = {
    width, page: doc.documentElement.scrollWidth,
    background: rgb(win.getComputedStyle(doc.body).backgroundColor),
    colours: all("p, a, .said, .paper, .holds, .fails").map(
      e => rgb(win.getComputedStyle(e).color)),
    broken: all("td:not(.long)").filter(e => lines(e) > 1).map(e => e.textContent),
    claims: all(".claims > li").map(e => e.querySelector("span").textContent),
    tables: all("table").map(e => {
      const outer = box(e.parentElement), cells = e.querySelectorAll("td");
      e.parentElement.scrollLeft = 1e6;
      const reached = box(cells[cells.length - 1]).right;
      e.parentElement.scrollLeft = 0;
      return {outside: outer.right, reached, first: box(cells[0]).left, left: outer.left};
    }),
    images: all("img").map(e => ({
      kind: e.className, file: e.currentSrc.split("/").pop(),
      shown: e.clientWidth, natural: e.naturalWidth,
      given: Number(e.getAttribute("width")), outside: box(e.closest(".scroll")).right,
      place: [box(e).left, box(e).top, box(e).right, box(e).bottom],
    })),
  };
  return found;
}
function cut(frame) {
  const doc = frame.contentDocument, whole = doc.documentElement.getBoundingClientRect();
  return [...doc.querySelectorAll("text")].filter(e => {
    const box = e.getBoundingClientRect();
    return Math.min(box.left - whole.left, box.top - whole.top,
                    whole.right - box.right, whole.bottom - box.bottom) < -1;
  }).map(e => e.textContent);
}
addEventListener("load", () => {
  const out = {pages: {}, cut: {}};
  for (const frame of document.querySelectorAll("iframe"))
    if (frame.title.endsWith(".svg")) out.cut[frame.title] = cut(frame);
    else out.pages[frame.title] = measured(frame);
  const text = document.createElement("pre");
  text.id = "measured"; text.textContent = JSON.stringify(out); document.body.append(text);
});
"""


@pytest.fixture(scope="module", params=["light", "dark"])
def seen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The colour scheme, what was measured by report and width, and a picture of each wide one."""
    if BROWSER is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on the path")
    scheme, folder = request.param, tmp_path_factory.mktemp("browser")
    frames = "".join(
        f'<iframe title="{page.parent.relative_to(ROOT)} {width}" src="{page.as_uri()}"'
        f' style="display:block;border:0;width:{width}px;height:3000px"></iframe>'
        for width in WIDTHS
        for page in REPORTS
    )
    lines = [svg for page in REPORTS for svg in sorted(page.parent.glob("*.svg"))]
    frames += "".join(
        f'<iframe title="{svg.relative_to(ROOT)}" src="{svg.as_uri()}"'
        ' style="display:block;border:0;width:1400px;height:6000px"></iframe>'
        for svg in (lines if scheme == "light" else [])
    )
    style = f"margin:0;color-scheme:{scheme}"
    text = f'<!doctype html><body style="{style}">{frames}<script>{MEASURE}</script>'
    wrapper = folder / "all.html"
    wrapper.write_text(text, encoding="utf-8")

    def browsed(page: Path, *options: str) -> str:
        given = [*OPTIONS, f"--user-data-dir={folder / 'user'}", "--window-size=1400,3000"]
        given.append(f"--blink-settings=preferredColorScheme={['dark', 'light'].index(scheme)}")
        command = [str(BROWSER), *given, *options, page.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, timeout=300).stdout

    measured = re.search(r'<pre id="measured">(.*?)</pre>', browsed(wrapper, "--dump-dom"), re.S)
    assert measured, "the browser measured nothing"
    browsed(REPORTS[-1], f"--screenshot={folder / 'seen.png'}")  # the toy study
    return scheme, json.loads(measured[1]), np.asarray(Image.open(folder / "seen.png"))[..., :3]


def test_no_word_of_a_figure_is_cut_off(seen: Any) -> None:
    scheme, found, _ = seen
    if scheme == "light":
        assert len(found["cut"]) >= 20
        assert {name: words for name, words in found["cut"].items() if words} == {}


def luminance(colour: Any) -> Any:
    """Relative luminance of sRGB colours (..., 3), by WCAG 2."""
    c = np.asarray(colour) / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ [
        0.2126,
        0.7152,
        0.0722,
    ]


def contrast(one: Any, other: Any) -> Any:
    """The contrast of two colours, from 1 to 21, by WCAG 2."""
    a, b = luminance(one) + 0.05, luminance(other) + 0.05
    return np.maximum(a / b, b / a)


def test_nothing_is_clipped_or_broken(seen: Any) -> None:
    pages = seen[1]["pages"]
    assert len(pages) == len(WIDTHS) * len(REPORTS) >= 8
    for name, page in pages.items():
        assert page["page"] <= page["width"], f"{name} scrolls sideways"
        assert page["broken"] == [], f"{name} breaks cells"
        assert page["claims"] and all(page["claims"]), name
        for table in page["tables"]:  # its own box scrolls, from the first cell to the last
            assert table["outside"] <= page["width"], name
            assert table["first"] >= table["left"] - 1 and table["reached"] <= table["outside"] + 1


def test_figures_keep_the_size_at_which_they_are_read(seen: Any) -> None:
    for name, page in seen[1]["pages"].items():
        assert page["images"], name
        for image in page["images"]:
            assert image["natural"] > 0 and image["outside"] <= page["width"], (name, image)
            if image["kind"] == "images":  # they scroll in their own box
                assert image["shown"] == image["given"] >= 0.6 * image["natural"], (name, image)
                continue
            assert (".narrow." in image["file"]) == (page["width"] == min(WIDTHS)), image
            drawn = image["natural"] * (1 if image["kind"] == "lines" else 0.64)  # 96 of 150 dpi
            assert image["shown"] >= 0.9 * drawn, (name, image)


def test_light_and_dark_are_both_read(seen: Any) -> None:
    scheme, found, picture = seen
    paper, pages = PAPER[scheme], found["pages"]
    for name, page in pages.items():
        assert tuple(page["background"]) == paper, name
        assert min(contrast(colour, paper) for colour in page["colours"]) >= 4.5, name
    toy = pages[f"{REPORTS[-1].parent.relative_to(ROOT)} 1400"]
    for image in toy["images"][:2]:
        left, top, right, bottom = map(int, image["place"])
        part = picture[top:bottom, left:right].reshape(-1, 3)
        assert (part == paper).all(1).mean() > 0.5, f"{image['file']} has a ground of its own"
        # Words and axes stand out against the page, as they would not in the other scheme's ink.
        assert (contrast(part, paper) >= 10).mean() > 0.002, image["file"]
