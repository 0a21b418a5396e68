"""The explorer of a report: what it holds, and what a reader does with it in a browser."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from bench import report
from bench.render import explore
from bench.render.explore import Explorer, said, unpacked
from bench.store.rows import to_bytes
from bench.studies import STUDIES
from tests import mini
from tests.render.test_browser import BROWSER, contrast
from tests.rows import TOY_ROWS, TOY_SAMPLES, row
from tests.test_plugins import METHOD

TOY = STUDIES["toy_grid"]
MOST = 3_000_000
PHONE = 360


def store(folder: Path, rows: list[Any], samples: list[Any] = [], scale: str = "smoke") -> Path:  # noqa: B006
    """Writes rows and samples of the toy study as published results."""
    place = folder / "toy_grid"
    place.mkdir(parents=True, exist_ok=True)
    tables = (("", rows, TOY_ROWS), ("_samples", samples, TOY_SAMPLES))
    for end, each, schema in tables:
        content = to_bytes(pa.Table.from_pylist(each, schema=schema))
        (place / f"{scale}{end}.parquet").write_bytes(content)
    return folder


def toy_rows() -> tuple[list[Any], list[Any]]:
    """Rows and points of 40 trainings: scores are spread, one is diverged, one lacks an error."""
    rng, rows, samples = np.random.default_rng(0), [], []
    for i, spec in enumerate(TOY.specs("smoke", seeds=5)):
        scores = {"mse_x": 10.0 ** rng.uniform(-3, 3), "high_quality": float(rng.random())}
        rows.append(row(spec, float(rng.uniform(1, 5)), **scores))
        if i == 3:
            rows[-1] = row(spec, None)
        if i == 5:
            rows[-1]["mse_x"] = None
        x = rng.normal(size=(3, 64))
        samples.append({"id": spec.id, "x": x[0], "x_rec": x[1], "samples": [*x[2][:-1], 1e9]})
    return rows, samples


def column(packed: dict[str, Any], n: int) -> list[Any]:
    if "values" in packed:
        return packed["values"]
    return [packed["levels"][code] for code in packed.get("codes", [0] * n)]


def close(told: Any, stored: Any) -> bool:
    if stored is None or stored != stored:
        return told is None
    return told == stored or math.isclose(told, stored, rel_tol=1e-6)


# What it holds


@pytest.mark.parametrize("study", ["toy_grid", "mnist", "theory"])
def test_the_page_says_what_the_rows_say(study: str) -> None:
    results = report.REFERENCE
    page = Explorer(STUDIES[study], "quick", results).html()
    assert len(page) < MOST
    found = re.search(r'<script id="data" type="text/plain">(.*?)</script>', page)
    data = unpacked(found[1]) if found else {}
    n, table = data["n"], STUDIES[study].load(results, "quick")[0]
    rows = {each["id"]: each for each in table.to_pylist()}
    ids = column(data["texts"]["id"], n)
    assert {*ids} == rows.keys() and n == len(rows)
    assert {*data["roles"]} == {"score", "error", "share"}
    measured = {each["name"]: column(each, n) for each in data["numbers"]}
    assert {"train_seconds", "mse_x", *data["roles"].values()} <= measured.keys()
    for name, told in measured.items():
        assert all(close(v, rows[id][name]) for v, id in zip(told, ids, strict=True)), name
    fields = {each["name"]: column(each, n) for each in data["fields"]}
    assert {"method", "lam", "seed", "epochs", "status"} <= fields.keys()
    for name, told in fields.items():
        assert told == [rows[id][name] for id in ids], name
    traced = [
        name for name in ("trace_epoch", "trace_step", "trace_batch") if name in table.schema.names
    ]
    steps = column(data["curves"]["at"], n)
    assert steps == [rows[id][traced[0]] or [] for id in ids]
    if study == "toy_grid":
        own = [dict(rows[id]["decoder_gradient"])[rows[id]["method"]] for id in ids]
        drawn = [[e["y"][i] for e in data["curves"]["series"] if e["y"][i]] for i in range(n)]
        assert all(len(each) == 1 for each in drawn)
        pairs = [
            pair
            for (y,), given in zip(drawn, own, strict=True)
            for pair in zip(y, given, strict=True)
        ]
        assert all(math.isclose(*pair, rel_tol=1e-3) for pair in pairs)


def test_thousands_of_runs_with_points_stay_small(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    specs = TOY.specs("paper")
    assert len(specs) == 3456

    def grown(spec: Any) -> dict[str, Any]:
        numbers = {"mse_x": float(rng.random()), "mse_z": float(rng.random())}
        trace = {"trace_epoch": [*range(9)], "decoder_gradient": {spec.method: rng.random(9)}}
        return row(
            spec, float(rng.uniform(1, 5)), high_quality=float(rng.random()), **numbers, **trace
        )

    points = [
        {
            "id": s.id,
            **dict.fromkeys(("x", "x_rec"), rng.normal(size=512)),
            "samples": rng.normal(size=512),
        }
        for s in specs
    ]
    store(tmp_path, [grown(spec) for spec in specs], points, "paper")
    explorer = Explorer(TOY, "paper", tmp_path)
    page = explorer.html()
    assert len(page) < MOST
    assert len(explorer.data()["points"]["rows"]) == 3456  # each has some of its points


def test_a_number_is_rounded_once(opened: Open, tmp_path: Path) -> None:
    """3.06048 is 3.06, though five digits of it are 3.0605 and four of these 3.061."""
    scores = [3.06048, 2.0]
    rows = [row(spec, y) for spec, y in zip(TOY.specs("smoke", seeds=2), scores, strict=False)]
    path = tmp_path / "explore.html"
    path.write_text(Explorer(TOY, "smoke", store(tmp_path / "r", rows)).html(), "utf-8")
    page = opened(path=path)
    assert page.locator("tbody tr").first.locator("td", has_text="3.06").inner_text() == "3.06"


def test_points_are_those_that_were_kept(tmp_path: Path) -> None:
    rows, samples = toy_rows()
    data = Explorer(TOY, "smoke", store(tmp_path, rows, samples[:7])).data()
    points, ids = data["points"], column(data["texts"]["id"], data["n"])
    assert {ids[i] for i in points["rows"]} == {each["id"] for each in samples[:7]}
    known = {each["id"]: each for each in samples}
    for kind in ("x", "x_rec", "samples"):
        for i, text in zip(points["rows"], column(points[kind], 7), strict=True):
            steps = np.frombuffer(base64.b64decode(text), np.uint8).astype(float)
            given = np.asarray(known[ids[i]][kind])
            inside = np.abs(given) <= points["reach"]
            assert ((steps == 255) == ~inside).all() and inside.mean() > 0.9
            drawn = (steps / 254 * 2 - 1) * points["reach"]
            assert np.abs(drawn - given)[inside].max() <= points["reach"] / 200


def test_images_stand_in_the_page_but_never_people(tmp_path: Path) -> None:
    found = Explorer(STUDIES["cifar10"], "quick", report.REFERENCE).data()["images"]
    assert len(found["rows"]) == 22
    study = STUDIES["celeba"]
    kept = study.load(report.REFERENCE, "quick")[0]
    for data in ("celeba", "stand-in faces", "celeba folder 0123 64"):
        assert not study.shows({"data": data})
    assert STUDIES["cifar10"].shows({"data": "cifar10"})
    place = tmp_path / "celeba"
    place.mkdir()
    (place / "quick.parquet").write_bytes(to_bytes(kept))
    images = {"shape": [3, 64, 64], **dict.fromkeys(("x", "x_rec", "samples"), bytes(3 * 64 * 64))}
    ids = kept["id"].to_pylist()
    schema = study.store(tmp_path, "quick").load_samples().schema
    table = pa.Table.from_pylist([{"id": id, **images} for id in ids], schema=schema)
    (place / "quick_samples.parquet").write_bytes(to_bytes(table))
    assert len(study.store(tmp_path, "quick").load_samples()) == len(ids)
    data = Explorer(study, "quick", tmp_path).data()
    assert "images" not in data and "points" not in data and data["n"] == len(ids)


def test_every_kind_of_rows_makes_a_page(tmp_path: Path) -> None:
    """One run; only diverged runs; no samples; numbers without spread; infinities."""
    specs = TOY.specs("smoke", seeds=2)
    for name, rows in {
        "one": [row(specs[0])],
        "diverged": [row(spec, None) for spec in specs],
        "equal": [row(spec) for spec in specs],
        "infinite": [row(spec, mse_x=math.inf, mse_z=math.nan) for spec in specs],
    }.items():
        data = Explorer(TOY, "smoke", store(tmp_path / name, rows)).data()
        assert data["n"] == len(rows) and "points" not in data
        json.dumps(data, allow_nan=False)
    assert [each["levels"] for each in data["numbers"] if each["name"] == "mse_x"] == [["inf"]]


def test_a_study_of_ones_own_needs_to_declare_nothing() -> None:
    numbers = [
        {"name": "train_seconds", "values": [1.0, 2.0]},
        {"name": "heads", "values": [0.1, 0.2]},
    ]
    assert explore._roles(TOY.explored, numbers) == {"score": "heads"}
    numbers.append({"name": "mse_x", "values": [1, 2]})
    assert explore._roles(TOY.explored, numbers) == {"score": "heads", "error": "mse_x"}
    assert explore._roles({"score": ["mse_x"]}, numbers) == {"score": "mse_x", "error": "heads"}


def test_the_command_names_folder_plugin_and_images(tmp_path: Path) -> None:
    spec = TOY.specs("smoke")[0]
    folder = store(tmp_path, [row(spec, plugins={"my own.py": "0"})])
    (told,) = column(Explorer(TOY, "smoke", folder, "a b/r").data()["commands"], 1)
    assert told == " --results 'a b/r' --plugin 'my own.py'"
    assert column(Explorer(TOY, "smoke", folder).data()["commands"], 1) == [" --plugin 'my own.py'"]


def test_the_command_of_a_grid_with_a_method_of_ones_own_runs(
    opened: Open, python: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(METHOD.format(doc='"""Ours."""', loss="(f_p - f_q).mean(-1)"))
    (tmp_path / "narrow.toml").write_text(
        'name = "narrow"\nbase = "toy_grid"\nmethods = ["mine"]\nlams = [0.1]\n'
        "[axes]\nepochs = [1]\nencoder_width = [16]\n"
    )
    files = ["--plugin", "own.py", "--study", "narrow.toml"]
    made = python("-m", "bench.run", *files, "--scale", "smoke", "--engine", "sequential")
    assert made[0] == 0, made
    page = opened(path=tmp_path / "reports/narrow/smoke/explore.html")
    page.locator("tbody tr").first.click()
    told = page.locator("#command").inner_text()
    status, shown, _ = python("-m", "bench.show", told.split()[4], *files[:2])
    assert status == 0 and told in [line.strip() for line in shown.splitlines()], (told, shown)
    status, out, err = python(*shlex.split(told)[1:])
    assert status == 0 and "the same" in out, (told, err)


def test_equal_rows_give_equal_pages_and_other_rows_others(tmp_path: Path) -> None:
    rows, samples = toy_rows()
    one = Explorer(TOY, "smoke", store(tmp_path / "a", rows, samples)).html()
    again = Explorer(TOY, "smoke", store(tmp_path / "b", rows[::-1], samples[::-1])).html()
    assert one == again
    assert said(
        re.sub(r'(<script id="bundle">).*?(</script>)', r"\1other Vega\2", one, flags=re.S)
    ) == said(one)
    rows[0]["inception_score"] += 0.01
    assert said(Explorer(TOY, "smoke", store(tmp_path / "c", rows, samples)).html()) != said(one)
    with pytest.raises(ValueError):
        said("<p>nothing</p>")


def test_check_compares_what_the_page_says_with_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, samples = toy_rows()
    monkeypatch.setattr(report, "REFERENCE", store(tmp_path / "r", rows, samples))
    build = report.build
    assert build("toy_grid", "smoke", report.REFERENCE).explorer is None
    assert [name for name, study in STUDIES.items() if study.explored_at] == ["toy_grid"]
    study = replace(TOY, explored_at="smoke")
    page, path = build(study, "smoke", report.REFERENCE), tmp_path / "explore.html"
    assert page.explorer and page.explorer.place == ""
    assert len([*report._explorer(tmp_path, page)]) == 1  # no file
    path.write_text(page.explorer.html(), encoding="utf-8")
    assert [*report._explorer(tmp_path, page)] == []
    rows[0]["seed"] += 100
    store(tmp_path / "r", rows, samples)
    assert "does not say" in next(report._explorer(tmp_path, page))


def test_reports_of_ones_own_have_an_explorer_and_a_link(tmp_path: Path) -> None:
    page = mini.build()
    assert page.explorer and page.explorer.place == str(mini.FOLDER)
    assert '<a href="explore.html">' in page.html(tmp_path)
    assert "explore" not in replace(page, explorer=None).html(tmp_path)


def test_what_writes_no_explorer_imports_no_altair() -> None:
    code = "import sys, bench.report, bench.run; print({'altair', 'vl_convert'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr


# What a reader does


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    if BROWSER is None:
        pytest.skip("no browser")
    drive = pytest.importorskip("playwright.sync_api")
    with drive.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("explorer")
    rows, samples = toy_rows()
    path = folder / "explore.html"
    path.write_text(Explorer(TOY, "smoke", store(folder / "r", rows, samples)).html(), "utf-8")
    return path


Open = Callable[..., Any]


@pytest.fixture
def opened(chromium: Any, page_file: Path) -> Iterator[Open]:
    """Opens the page in a window of its own; an error or a request of the page fails the test."""
    contexts, faults = [], []

    def opened(hash: str = "", path: Path = page_file, width: int = 1500, **more: Any) -> Any:
        context = chromium.new_context(viewport={"width": width, "height": 1000}, **more)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda told: faults.append(told.text))
        page.on(
            "request", lambda asked: faults.append(asked.url) if asked.url.startswith("http") else 0
        )
        page.goto(path.as_uri() + hash)
        page.wait_for_selector("body[data-ready]")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert faults == []


def count(page: Any) -> int:
    page.wait_for_timeout(400)
    page.wait_for_selector("#scatter:not([aria-busy])", state="attached")
    return int(page.locator("#count").inner_text().split(" of ")[0])


def within(
    low: float = -math.inf, high: float = math.inf, name: str = "inception_score"
) -> list[str]:
    """Ids of the runs whose value lies there."""
    values = {each["id"]: each.get(name) for each in toy_rows()[0]}
    return [id for id, v in values.items() if v is not None and low <= v <= high]


def drag(
    page: Any, chart: Any, x: tuple[float, float], y: tuple[float, float] = (0.5, 0.5)
) -> None:
    """Drags with the mouse between these shares of a chart."""
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    ends = [
        (box["x"] + a * box["width"], box["y"] + b * box["height"])
        for a, b in zip(x, y, strict=True)
    ]
    page.mouse.move(*ends[0])
    page.mouse.down()
    page.mouse.move(*np.mean(ends, axis=0))
    page.mouse.move(*ends[1])
    page.mouse.up()


def ends(page: Any, role: str) -> list[float]:
    """What the form says of the range of a measure."""
    found = [
        page.locator(f'[data-role="{role}"] [data-end="{end}"]').input_value()
        for end in ("least", "most")
    ]
    return [float(text or unset) for text, unset in zip(found, ("-inf", "inf"), strict=True)]


def test_a_brush_filters_everything(opened: Open) -> None:
    page = opened()
    assert count(page) == 40
    drag(page, page.locator("#histograms canvas").first, (0.45, 0.75))
    n = count(page)
    low, high = ends(page, "score")
    assert 1 < low < high < 5 and n == len(within(low, high)) and 0 < n < 40
    assert page.locator("#pager span").inner_text().endswith(f"of {n}")
    drag(page, page.locator("#scatter canvas"), (0.2, 0.8), (0.3, 0.9))
    low, high = ends(page, "score")
    least, most = ends(page, "error")
    both = {*within(low, high)} & {*within(least, most, "mse_x")}
    assert count(page) == len(both) > 0 and least < most < math.inf
    assert "range.mse_x" in page.evaluate("location.hash")
    page.get_by_role("button", name="Reset").click()
    assert count(page) == 40 and ends(page, "score") == [-math.inf, math.inf]


@pytest.mark.parametrize("outside", [6, 0, -1])
def test_a_drag_may_begin_outside_the_frame_or_on_its_axis(opened: Open, outside: int) -> None:
    page = opened()
    assert count(page) == 40
    chart = page.locator("#histograms canvas").first
    chart.scroll_into_view_if_needed()
    frame = left_of_frame(page)
    drag(page, chart, (frame - outside / chart.bounding_box()["width"], 0.6))
    n = count(page)
    low, high = ends(page, "score")
    assert low == -math.inf and high < 4 and n == len(within(high=high)) < 40


def left_of_frame(page: Any) -> float:
    """The share of the first histogram's width that lies left of its lowest score."""
    chart = page.locator("#histograms canvas").first
    picture = pixels(chart)[30:90]
    grid = np.abs(picture - picture[:, -1:]).max(axis=2).min(axis=0) > 5
    return float(np.flatnonzero(grid)[0]) / len(grid)


def test_few_selected_runs_are_seen_among_many(opened: Open, tmp_path: Path) -> None:
    specs = TOY.specs("smoke", seeds=200)
    rows = [row(spec, 1.0 + 3.0 * (spec.seed > 0)) for spec in specs]
    rows[-1] = row(specs[-1], 4.0, mse_x=50.0)
    path = tmp_path / "explore.html"
    path.write_text(Explorer(TOY, "smoke", store(tmp_path / "r", rows)).html(), "utf-8")
    page = opened("#range.mse_x=40..", path)
    assert count(page) == 1
    chart = page.locator("#histograms .chart").first

    def drawn(colour: Any) -> int:
        page.locator("h1").hover()
        return int((np.abs(pixels(chart) - colour).sum(axis=2) < 60).sum())

    method = {"svae_r": (0, 114, 178), "alice": (213, 94, 0)}[rows[-1]["method"]]
    assert drawn(method) >= 10
    grey = drawn((215, 215, 215))
    page.get_by_label("Heights of the selected runs alone").check()
    count(page)
    assert drawn(method) > 300 and drawn((215, 215, 215)) < grey / 5


def test_the_form_moves_the_brush(opened: Open) -> None:
    page = opened()
    chart = page.locator("#histograms .chart").first
    assert count(page) == 40
    before = pixels(chart)
    page.locator('[data-role="score"] [data-end="least"]').fill("3")
    assert count(page) == len(within(3))
    page.locator("h1").click()
    after = pixels(chart)
    top = np.abs(after - before)[8:20].max(axis=(0, 2)) > 20  # where few bars reach
    w = len(top)
    assert top[6 * w // 10 : 9 * w // 10].mean() > 0.9 and top[: w // 2].mean() < 0.4
    box = chart.bounding_box()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 40)  # the brush itself is dragged
    page.mouse.down()
    page.mouse.move(box["x"] + 0.55 * box["width"], box["y"] + 40, steps=3)
    page.mouse.up()
    count(page)
    low, high = ends(page, "score")
    assert 1.5 < low < 2.9 and high < 5
    assert count(page) == len(within(low, high))


def pixels(locator: Any) -> np.ndarray:
    """A picture of an element, (height, width, 3)."""
    return np.asarray(Image.open(io.BytesIO(locator.screenshot())).convert("RGB")).astype(int)


def test_a_click_chooses_a_run_and_its_command_is_copied(opened: Open) -> None:
    page = opened(permissions=["clipboard-read", "clipboard-write"])
    value = sorted(toy_rows()[0], key=lambda each: each.get("inception_score") or 0)[-3]
    id = value["id"]
    around = value["inception_score"] - 1e-4, value["inception_score"] + 1e-4
    for end, given in zip(("least", "most"), around, strict=True):
        page.locator(f'[data-role="score"] [data-end="{end}"]').fill(f"{given}")
    assert count(page) == 1
    chart = page.locator("#scatter .chart")
    colour = {"svae_r": (0, 114, 178), "alice": (213, 94, 0)}[value["method"]]
    far = np.abs(pixels(chart) - colour).sum(axis=2)
    y, x = np.unravel_index(far.argmin(), far.shape)
    assert far.min() < 120
    page.locator("#detail").evaluate("e => e.scrollTo(0, 0)")
    chart.click(position={"x": int(x), "y": int(y)})
    assert count(page) == 1  # a click moves no brush
    detail = page.locator("#detail").inner_text()
    assert id in detail and value["label"] in detail and f"{value['inception_score']:.3f}" in detail
    assert "gradient at the decoder" in detail and page.locator("#detail canvas").count() == 3
    assert "1 of 32 lie outside" in detail
    page.get_by_role("button", name="Copy the command").click()
    page.get_by_text("copied", exact=True).wait_for()
    command = f"python -m bench.run --id {id}"
    assert page.evaluate("navigator.clipboard.readText()") == command


def test_without_the_clipboard_the_command_is_selected(opened: Open) -> None:
    id = within(1)[0]
    page = opened(f"#run={id}")
    page.evaluate("""() => {
        navigator.clipboard.writeText = () => Promise.reject(new Error("not allowed"));
        document.execCommand = () => false;
    }""")
    page.get_by_role("button", name="Copy the command").click()
    page.get_by_text("The command is selected").wait_for()
    assert page.evaluate("getSelection().toString()").strip() == f"python -m bench.run --id {id}"


def tab_to(page: Any, selector: str, most: int = 150) -> None:
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate("s => document.activeElement.matches(s)", selector):
            return
    raise AssertionError(f"Tab does not reach {selector}")


def test_the_keyboard_alone_does_all(opened: Open) -> None:
    page = opened(permissions=["clipboard-read", "clipboard-write"])
    tab_to(page, '[data-role="score"] [data-end="least"]')
    page.keyboard.type("2.5")
    tab_to(page, '[data-role="error"] [data-end="most"]')
    page.keyboard.type("100")
    chosen = {*within(2.5)} & {*within(high=100, name="mse_x")}
    assert count(page) == len(chosen)
    tab_to(page, '[data-field="method"] input')
    page.keyboard.press("Space")
    rows = {each["id"]: each for each in toy_rows()[0]}
    chosen = {id for id in chosen if rows[id]["method"] == "svae_r"}
    assert count(page) == len(chosen) > 2
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"  # the focus is seen
    tab_to(page, '[data-name="mse_x"] button')
    page.keyboard.press("Enter")
    assert count(page) == len(chosen)
    assert page.locator('[data-name="mse_x"]').get_attribute("aria-sort") == "ascending"
    order = sorted(chosen, key=lambda id: rows[id]["mse_x"])
    tab_to(page, "tbody tr")
    page.keyboard.press("ArrowDown")
    count(page)
    assert page.locator("tr[aria-selected=true] td").last.inner_text() == order[1]
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "detail"
    tab_to(page, "#copy")
    page.keyboard.press("Enter")
    page.get_by_text("copied", exact=True).wait_for()
    assert page.evaluate("navigator.clipboard.readText()").endswith(f"--id {order[1]}")
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.tagName") == "TR"
    page.keyboard.press("End")
    count(page)
    assert order[-1] in page.locator("#command").inner_text()
    page.keyboard.press("Shift+Tab")
    for _ in range(60):
        page.keyboard.press("Shift+Tab")
        if page.evaluate("document.activeElement.id") == "scatter":
            break
    page.keyboard.press("ArrowLeft")
    by_score = sorted(chosen, key=lambda id: rows[id]["inception_score"])
    before = by_score[max(0, by_score.index(order[-1]) - 1)]
    count(page)
    assert before in page.locator("#command").inner_text()


def test_runs_without_scores_are_counted_and_found(opened: Open) -> None:
    page = opened()
    assert "runs are not drawn" in page.locator("#scatter .said").inner_text()  # two of them
    page.get_by_label("diverged").check()
    assert count(page) == 1
    page.locator("tbody tr").first.click()
    assert "This training diverged" in page.locator("#detail").inner_text()
    page.get_by_role("button", name="Reset").click()
    page.locator('[data-role="error"] .how select').select_option("without")
    assert count(page) == 2
    page.locator('[data-role="error"] .how select').select_option("with")
    assert count(page) == 38


def test_another_measure_takes_a_place(opened: Open) -> None:
    page = opened()
    page.locator('[data-role="error"] [data-end="most"]').fill("1")
    assert count(page) == len(within(high=1, name="mse_x"))
    page.get_by_label("second measure").select_option("modes")
    assert count(page) == len(within(high=1, name="mse_x"))  # the range stays, and is told
    assert page.locator("#others p").inner_text() == "mean squared error of x: at most 1 Remove"
    again = opened(page.evaluate("location.hash"))
    assert count(again) == len(within(high=1, name="mse_x"))
    page.get_by_role("button", name="Remove").click()
    assert count(page) == 40 and page.locator("#others p").count() == 0
    assert page.locator("#scatter figcaption").inner_text() == "inception score and modes"
    page.locator('[data-role="error"] [data-end="least"]').fill("5")
    assert count(page) == 39


@pytest.mark.parametrize("width", [1300, PHONE])
def test_method_and_sorted_column_stay_while_the_table_is_scrolled(
    opened: Open, width: int
) -> None:
    page = opened("#sort=decoder_depth", width=width)
    names = page.locator("#table th").evaluate_all("e => e.map(each => each.dataset.name)")
    shown = [names.index(name) for name in ("inception_score", "decoder_depth", "mse_z", "id")]
    assert names[:3] == ["label", "lam", "seed"] and shown == sorted(shown)
    for end in ("0", "e.scrollWidth"):
        page.locator("#table .scroll").evaluate(f"e => e.scrollLeft = {end}")
        box = page.locator("#table .scroll").bounding_box()
        for name in ("label", "decoder_depth"):
            cell = page.locator("tbody tr").first.locator("td").nth(names.index(name))
            at = cell.bounding_box()
            assert box["x"] - 1 <= at["x"] <= at["x"] + at["width"] <= box["x"] + box["width"] + 1
            assert cell.evaluate("e => getComputedStyle(e).backgroundColor") != "rgba(0, 0, 0, 0)"


def test_the_table_is_wide_until_a_run_is_chosen(opened: Open) -> None:
    page = opened()
    before = page.locator("#table").bounding_box()["width"]
    page.locator("tbody tr").first.click()
    count(page)
    assert page.locator("#table").bounding_box()["width"] < before - 300
    heads = page.locator("#about h3").all_inner_texts()
    assert heads.index("Settings that vary") < heads.index("Scores")


def test_a_line_says_what_the_selected_runs_have_in_common(opened: Open) -> None:
    page = opened()
    assert page.locator("#common").inner_text() == "In common: nothing that varies"
    page.locator('[data-field="decoder_depth"] input').first.check()
    page.locator('[data-field="lam"] input').first.check()
    count(page)
    told = "In common: λ 0, decoder depth 2, decoder width 32, status ok"
    assert page.locator("#common").inner_text() == told
    assert page.locator("#common").get_attribute("aria-live") == "polite"


def test_a_line_says_what_most_of_the_selected_runs_have(opened: Open, tmp_path: Path) -> None:
    """Four of five runs that score below 2 are of lambda 0.1, as is half of all."""
    specs = TOY.specs("smoke", seeds=3)
    low = [s for s in specs if s.lam][:4] + [s for s in specs if not s.lam][:1]
    rows = [row(spec, 1.5 if spec in low else 3.0) for spec in specs]
    path = tmp_path / "explore.html"
    path.write_text(Explorer(TOY, "smoke", store(tmp_path / "r", rows)).html(), "utf-8")
    page = opened("#range.inception_score=..2", path)
    assert count(page) == 5
    assert "mostly λ 0.1 (4 of 5; of all runs 50 %)" in page.locator("#common").inner_text()


def test_runs_of_other_settings_are_left_out_until_a_tick_is_taken_away(
    opened: Open, tmp_path: Path
) -> None:
    """More seeds are the study's own settings; another learning rate is not."""
    own, others = TOY.specs("smoke", seeds=7), TOY.specs("smoke", lrs=[0.01])
    folder = store(tmp_path / "r", [row(spec) for spec in [*own, *others]])
    path = tmp_path / "explore.html"
    path.write_text(Explorer(TOY, "smoke", folder).html(), "utf-8")
    page = opened(path=path)
    assert count(page) == len(own)
    assert f"without {len(others)} of other settings" in page.locator("#count").inner_text()
    tick = page.get_by_label(f"own settings: {len(own)} runs; {len(others)} have others")
    tick.uncheck()
    assert count(page) == len(own) + len(others)
    again = opened(page.evaluate("location.hash"), path)
    assert count(again) == len(own) + len(others)
    again.get_by_role("button", name="Reset").click()
    assert count(again) == len(own)
    for name, rows in {"own": own, "others": others}.items():
        alike = Explorer(TOY, "smoke", store(tmp_path / name, [row(spec) for spec in rows]))
        assert alike.data()["own"] is None


def test_the_address_holds_the_view(opened: Open) -> None:
    page = opened()
    page.locator('[data-role="score"] [data-end="least"]').fill("2")
    page.get_by_label("0.1", exact=False).first.check()
    page.locator("tbody tr").nth(2).click()
    n, hash = count(page), page.evaluate("location.hash")
    again = opened(hash)
    assert count(again) == n < 40 and ends(again, "score")[0] == 2
    assert again.locator("#chosen").inner_text() == page.locator("#chosen").inner_text()
    odd = quote(
        "range.mse_x=a..b&field.method=x&run=y&sort=z&page=-3&range.q=1..2&value.mse_x=?", safe="=&"
    )
    odd_page = opened("#" + odd)
    assert count(odd_page) == 40
    told = odd_page.locator("#told").inner_text()
    assert "range.mse_x=a..b, field.method=x, run=y, sort=z and 3 more" in told
    assert odd_page.locator("#told").get_attribute("role") == "status"
    odd_page.get_by_role("button", name="Reset").click()
    count(odd_page)
    assert odd_page.locator("#told").inner_text() == "" == again.locator("#told").inner_text()
    assert "0..1e" in opened("#range.mse_x=0..1e").locator("#told").inner_text()


def test_a_range_that_can_not_be_is_told(opened: Open) -> None:
    page = opened()
    least, most = (page.locator(f'[data-role="score"] [data-end="{e}"]') for e in ("least", "most"))
    least.fill("4")
    most.fill("2")
    assert count(page) == 0
    told = page.locator("#told")
    assert told.inner_text() == "inception score: least, 4, is larger than most, 2."
    most.fill("two")
    assert count(page) == len(within(4))
    assert told.inner_text() == "inception score: two is no number, so it filters nothing."
    most.fill("")
    count(page)
    assert told.inner_text() == ""


def test_the_first_digits_of_an_id_find_a_run(opened: Open) -> None:
    id = within(1)[0]
    page = opened(f"#run={id[:6]}")
    assert id in page.locator("#command").inner_text()
    page = opened()
    field = page.get_by_label("Find an id")
    for given, told in {id[:3]: "Give the first 4", "xxxx": "No id begins with xxxx"}.items():
        field.fill(given)
        field.press("Enter")
        assert told in page.locator("#told").inner_text()
        assert page.locator("#chosen").inner_text() == "No run is chosen"
    field.fill(id[:4].upper())
    field.press("Enter")
    assert id in page.locator("#command").inner_text()
    assert page.locator("#told").inner_text() == ""


def test_fields_have_the_names_that_commands_take(opened: Open) -> None:
    page = opened()
    legend = page.locator('[data-field="decoder_depth"] legend')
    assert legend.inner_text() == "decoder depth (decoder_depth)"
    figure = page.locator('#histograms [data-role="score"]')
    assert "inception score" in (figure.get_attribute("aria-label") or "")
    assert page.locator('#table [data-name="status"]').count() == 1  # as one run diverged
    page.locator("tbody tr").first.click()
    assert "critic updates (critic_steps)" in page.locator("#about").inner_text()


def test_hostile_names_stay_text(opened: Open, tmp_path: Path) -> None:
    bad = "</script><img src=x onerror=document.body.innerHTML=1>"
    rows = [row(spec, label=bad, method=bad) for spec in TOY.specs("smoke")[:2]]
    for each, seed in zip(rows, (0, 1), strict=True):
        each |= {"seed": seed, "decoder_gradient": {bad: [1.0, 2.0]}}
    explorer = Explorer(
        replace(TOY, title=bad, stale=True), "smoke", store(tmp_path / "r", rows), bad
    )
    path = tmp_path / "bad.html"
    path.write_text(explorer.html(), encoding="utf-8")
    page = opened(path=path)
    assert count(page) == 2 and page.locator("h1").inner_text() == f"{bad} (smoke)"
    page.locator("tbody tr").first.click()
    assert (
        bad in page.locator("#chosen").inner_text() and bad in page.locator("#about").inner_text()
    )
    assert page.locator("img").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_reaches_everything(opened: Open, scheme: str) -> None:
    page = opened(width=PHONE, color_scheme=scheme, has_touch=True)
    page.get_by_role("link", name="Filters").tap()
    assert page.locator("#form").get_attribute("open") is not None
    page.get_by_label("sVAE, sVAE-r").tap()
    assert count(page) == 20
    page.locator("tbody tr").first.tap()
    count(page)
    page.get_by_role("button", name="Copy the command").wait_for()
    inside = "innerHeight > document.querySelector('#chosen').getBoundingClientRect().top"
    assert page.evaluate(inside)  # the chosen run is seen at once
    found = page.evaluate("""() => {
      const all = selector => [...document.querySelectorAll(selector)];
      const rgb = text => text.match(/[0-9.]+/g).slice(0, 3).map(Number);
      const box = e => e.getBoundingClientRect();
      const shown = all("input, select, button, a, canvas, code")
        .filter(e => !e.closest(".scroll, .skip") && e.offsetParent);
      return {
        page: document.documentElement.scrollWidth, n: shown.length,
        outside: shown.filter(e => box(e).right > innerWidth || !box(e).width)
          .map(e => e.outerHTML.slice(0, 80)),
        colours: all("p:not(#tip), label, h2, td, legend").map(e => rgb(getComputedStyle(e).color)),
        paper: rgb(getComputedStyle(document.body).backgroundColor),
      };
    }""")
    assert found["n"] > 20
    assert found["page"] <= PHONE and found["outside"] == []
    assert (max(found["paper"]) < 40) == (scheme == "dark")
    assert min(contrast(each, found["paper"]) for each in found["colours"]) >= 4.5
