"""What is said of stored results: tables known by heart, intervals, verdicts, pages, checks."""

from __future__ import annotations

import html.parser
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy.stats import binom

from bench import report
from bench.cli import UsageError
from bench.render import figures as render
from bench.render import intervals as stats
from bench.render import page, tables
from bench.render.claims import OURS, PAPER
from bench.render.compare import agrees
from bench.render.figures import plotted
from bench.render.tables import Column, Table
from bench.store.rows import StoreError, to_bytes
from bench.studies import STUDIES
from bench.studies.toy_grid import figures, published, runs
from bench.studies.toy_grid import report as toy
from bench.studies.toy_grid.spec import ToySpec
from tests import mini
from tests.rows import TOY_ROWS, points, row, smoke


def test_the_miniature_report_is_reproduced_exactly() -> None:
    texts = mini.build().texts()
    assert sorted(texts) == sorted(p.name for p in mini.REPORT.iterdir())
    for name, text in texts.items():
        assert text == (mini.REPORT / name).read_text("utf-8"), name


def test_the_miniature_table_is_right() -> None:
    """By hand from the sixteen numbers in tests/mini.py."""
    scores = mini.build().tables["scores"]
    names = [column.name for column in scores.columns]
    cells = {(r[0], r[1]): dict(zip(names, r, strict=True)) for r in scores.rows}
    ali, svae = cells["0", "ALI"], cells["0", "sVAE"]
    assert (ali["n"], ali["diverged"], ali["not trained yet"]) == ("3", "0", "1")
    assert (svae["n"], svae["diverged"], svae["not trained yet"]) == ("4", "1", "0")
    # Of 4.9, 4.8, 3.0: the diverged run is not among them.
    assert svae["IS mean ± sd"] == "4.233 ± 1.069"
    assert svae["IS > 4.6"] == "50.0 %"  # the diverged run counts
    assert svae["MSE median"] == "5.5000"  # of 4, 5, 6, infinity
    assert svae["modes"] == "3.75"  # of 0, 5, 5, 5
    # A configuration with both seeds weighs as much as one that lacks a seed.
    assert ali["IS > 4.6"] == "75.0 %"  # of one half of the seeds, of the other all
    assert ali["and quality ≥ 0.8"] == "25.0 %"  # half and none
    assert ali["IS mean ± sd"].startswith("3.825")  # of 2.95 and 4.7
    assert ali["MSE median"] == "4.5000"  # of 3.2, 4, 5, 5
    assert cells["0.1", "ALICE"]["MSE < 0.5"] == "75.0 %"
    assert cells["0.1", "sVAE-r"]["paper IS > 4.6"] == "77.8 %"
    assert cells["0.1", "ALICE"]["paper IS > 4.6"] == "73.5 %"


@pytest.mark.parametrize("study", ["toy_grid", "cifar10"])
def test_a_precision_that_only_another_version_knows_is_left_out(
    study: str, tmp_path: Path
) -> None:
    known = STUDIES[study].load(report.REFERENCE, "quick")[0].slice(0, 12)
    first, *rows = known.to_pylist()
    rows.append({**first, "precision": "fp8", "epochs": 7})
    (tmp_path / study).mkdir()
    content = to_bytes(pa.Table.from_pylist(rows, schema=known.schema))
    (tmp_path / study / "quick.parquet").write_bytes(content)
    assert len(report.build(study, "quick", tmp_path).frame) == 11


def test_paper_cells_are_figure_3() -> None:
    cells = published.paper_cells()
    assert len(cells) == 6
    assert cells["ALI", 0.0]["IS mean"] == pytest.approx(2.77, abs=0.01)
    assert cells["sVAE-r", 0.1]["IS mean"] == pytest.approx(4.37, abs=0.01)
    assert cells["sVAE-r", 0.1]["MSE < 0.5"] == pytest.approx(0.913)
    assert cells["ALICE", 0.01]["IS > 4.6"] == pytest.approx(0.479)


class TestStats:
    @pytest.mark.parametrize("statistic", [None, lambda d: d.mean(1)])
    def test_the_interval_covers_the_truth_as_often_as_it_says(
        self, statistic: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stats, "RESAMPLES", stats.CHUNK)
        rng = np.random.default_rng(1)
        alone = shared = 0
        for _ in range(200):
            found = stats.bootstrap(rng.normal(0.3, 1, size=72).round(1), statistic)
            alone += found.interval().low <= 0.3 <= found.interval().high
            shared += found.interval(11).low <= 0.3 <= found.interval(11).high
        assert 180 <= alone <= 198  # 95 % of 200 is 190, sd 3
        assert shared >= 198  # 99.5 % of 200 is 199

    @pytest.mark.parametrize("truth", [0.02, 0.5, 0.9, 0.99])
    def test_the_interval_of_a_share_covers_it_also_near_0_and_1(self, truth: float) -> None:
        for n, tests in ((72, 11), (20, 1)):
            shares = [stats.Share(k / n, n).interval(tests) for k in range(n + 1)]
            covers = [each.low <= truth <= each.high for each in shares]
            known = binom.pmf(np.arange(n + 1), n, truth)
            assert known[covers].sum() >= 1 - 0.05 / tests
        assert shares[0].low == 0 and shares[-1].high == 1

    def test_seeds_that_disagree_make_a_share_surer(self) -> None:
        """Two independent seeds are twice as many runs, and two equal ones none more."""
        once = np.array([1.0, 0.0] * 36)
        assert stats.Share.of(once).n == pytest.approx(72)
        both = np.array([1.0, 0.5, 0.5, 0.0] * 18)
        assert stats.Share.of(both).n == pytest.approx(144)
        assert stats.Share.of(np.ones(72)) == stats.Share(1.0, 72)
        assert stats.Share.of(np.full(72, 0.5)).n == 72  # the spread says nothing

    @pytest.mark.parametrize("truth", [0.85, 0.97])
    def test_the_power_of_a_share_is_how_often_its_interval_excludes_the_bound(
        self, truth: float
    ) -> None:
        """Of 72 with a truth of 97 % the bound of 90 % is below in the cases without a miss."""
        for n, tests in ((72, 11), (300, 1)):
            known = binom.pmf(np.arange(n + 1), n, truth)
            shares = [stats.Share(k / n, n).interval(tests) for k in range(n + 1)]
            found = [each.low > 0.9 if truth > 0.9 else each.high < 0.9 for each in shares]
            power = stats.Share(0.5, n + 0.3).power(truth, 0.9, tests)
            assert power == pytest.approx(known[found].sum())
        assert stats.Share(0.5, 72).power(0.97, 0.9, 11) == pytest.approx(0.97**72)

    def test_distinct_values_are_resampled_as_all_values_are(self) -> None:
        values = np.repeat([0.0, 0.2, 0.4, 1.0], [20, 1, 30, 21])
        found, plain = stats.bootstrap(values), stats.bootstrap(values, lambda d: d.mean(1))
        assert found.value == plain.value
        assert found.error == pytest.approx(plain.error, rel=0.02)
        for tests in (1, 11):
            ends, same = ((i.low, i.high) for i in (found.interval(tests), plain.interval(tests)))
            assert ends == pytest.approx(same, abs=0.01)

    def test_power_is_how_often_a_true_effect_is_found(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(stats, "RESAMPLES", 2_000)
        rng = np.random.default_rng(3)
        for effect in (0.02, 0.05):
            samples = [
                rng.choice([-1, 0, 1], 300, p=[0.05 - effect / 2, 0.9, 0.05 + effect / 2])
                for _ in range(200)
            ]
            results = [stats.bootstrap(sample.astype(float)) for sample in samples]
            found = np.mean([result.interval(3).low > 0 for result in results])
            assert stats.power(effect, results[0].error, 3) == pytest.approx(found, abs=0.12)
        assert stats.power(-0.05, 0.02) == stats.power(0.05, 0.02)
        assert np.isnan(stats.power(0.1, 0.0))
        assert stats.power(0.0, 1.0, 11) == pytest.approx(0.025 / 11)

    def test_a_configuration_s_seeds_are_averaged_not_counted(self) -> None:
        a = pd.DataFrame({"config": list("xxyy"), "seed": [0, 1, 0, 1], "v": [1.0, 3.0, 5.0, 7.0]})
        b = a.assign(v=[0.0, 0.0, 1.0, 1.0]).iloc[::-1]
        x, y = stats.paired(a, b, "v")
        assert (x.tolist(), y.tolist()) == ([2.0, 6.0], [0.0, 1.0])
        assert stats.difference(x, y).value == 3.5
        few = stats.paired(a, b[b["seed"] == 0], "v")
        assert few[0].tolist() == [1.0, 5.0]  # unpaired seeds stay out

    def test_probability_of_improvement_counts_ties_half_and_infinity_as_worst(self) -> None:
        a = pd.DataFrame({"config": list("wxyz"), "seed": 0, "v": [1.0, np.inf, np.inf, 2.0]})
        b = a.assign(v=[2.0, 5.0, np.inf, 2.0])
        found = stats.improvement(a, b, "v", larger=False)
        assert found.value == (1 + 0 + 0.5 + 0.5) / 4
        assert stats.improvement(b, a, "v", larger=False).value == 0.5

    def test_wilcoxon_and_the_smallest_effect(self) -> None:
        a = np.arange(1.0, 7.0)
        assert stats.wilcoxon(a, np.zeros(6)) == pytest.approx(2 / 2**6)
        assert stats.wilcoxon(a, a) == 1
        d = np.array([1.0, -1.0] * 50)
        expected = (1.95996 + 0.84162) * d.std(ddof=1) / 10
        assert stats.detectable(d, np.zeros(100)) == pytest.approx(expected, rel=1e-4)


class Page(html.parser.HTMLParser):
    """Collects what matters of a page: tags, pictures, and addresses."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.heads: list[str | None] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        if tag == "h2":
            self.heads.append(dict(attrs)["id"])
        for name, value in attrs:
            if name in ("src", "srcset", "href") and not (value or "").startswith("#"):
                self.addresses.append(value or "")


def test_every_file_is_written_and_the_page_needs_no_other(tmp_path: Path) -> None:
    made = mini.build()
    report.write(made, tmp_path)
    page = Page((tmp_path / "report.html").read_text("utf-8"))
    pictures = [file for picture in made.pictures for file in picture.files]
    assert sorted(page.addresses) == sorted(["explore.html", *pictures])
    assert {p.name for p in made.pictures if p.kind == "dots"} == {"scatter", "points"}
    for file in pictures:
        content = (tmp_path / file).read_bytes()
        assert content.startswith(b"\x89PNG" if file.endswith(".png") else b"<?xml")
        # Lines and words of an SVG follow the reader's choice of light and dark.
        assert file.endswith(".png") or content.count(b"prefers-color-scheme: dark") == 1
    assert "script" not in page.tags and "link" not in page.tags
    assert len(page.images) == len(made.pictures) and all(each["alt"] for each in page.images)
    assert page.tags.count("table") == len(made.tables) - 1  # claims are a list
    known = {path.name for path in tmp_path.iterdir()}
    assert known == {*made.texts(), *pictures, "figures.json", "report.html", "explore.html"}


def test_an_svg_shortens_coordinates_and_no_words(tmp_path: Path) -> None:
    def draw() -> Figure:
        figure, (axes,) = render.panels(1, 1, 2, 2)
        axes.text(0, 0, "λ = 0.0001")
        return figure

    render.Picture("one", draw, "", "").write(tmp_path / "one.svg")
    text = (tmp_path / "one.svg").read_text("utf-8")
    assert "λ = 0.0001<" in text and ' d="M ' in text
    assert not re.search(r' d="[^"]*\d\.\d{3}', text)


def test_the_toy_report_opens_with_figure_3_and_its_scores() -> None:
    """Then comes the front with its table, other pictures, verdicts, other tables, none twice."""
    made = mini.build()
    names = [part.name for part in made.parts]
    assert names[:2] == ["figure3", "scores"] and len({*names}) == len(names)
    others = ["front", "equal", "profile", "scatter", "points", "gradient", "updates", "ratios"]
    more = ["claims", "pairs", "gradients", "components", "worst", "collapses", "changes"]
    assert names[2:] == [*others, *more]
    assert [row[1] for row in made.tables["scores"].rows] == ["sVAE", "ALI", "sVAE-r", "ALICE"]
    assert made.main is made.tables["scores"]
    assert (
        "24.7\N{NO-BREAK SPACE}%"
        in tables.Table("t", "T", "", [tables.Column("share")], [["24.7 %"]]).markdown()
    )


def test_what_a_figure_plots_has_a_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is that of the data: any run, label or colourless word changes it, style does not."""
    frame = runs.at_own_rate(runs.runs(STUDIES["toy_grid"], mini.FOLDER, "smoke"))
    digests = {name: plotted(getattr(figures, name)(frame)) for name in DRAWN}
    monkeypatch.setitem(render.COLOURS, "svae_r", "#123456")
    for name, digest in digests.items():
        assert plotted(getattr(figures, name)(frame)) == digest
    changed = frame.assign(score=2.0, mse=7.0, high_quality_counted=0.1, top=False, close=False)
    stronger = [[(name, np.asarray(s) * 9) for name, s in g] for g in frame["decoder_gradient"]]
    changed = pd.concat(
        [frame.iloc[:-1], changed.assign(decoder_gradient=pd.Series(stronger)).tail(1)]
    )
    for name, digest in digests.items():
        assert plotted(getattr(figures, name)(changed)) != digest, name
    renamed = frame.assign(label=frame["label"].replace("ALICE", "another"))
    assert plotted(figures.figure3(renamed)) != digests["figure3"]


DRAWN = ("figure3", "profile", "scatter", "gradient", "updates", "ratios")


def test_figure_3_counts_every_run_and_keeps_bars_in_their_places() -> None:
    """A diverged run is in the lowest bin of scores and in no bin of errors."""
    frame = runs.at_own_rate(runs.runs(STUDIES["toy_grid"], mini.FOLDER, "smoke"))
    figure = figures.figure3(frame)
    left, right = figure.axes[:2]  # lambda 0: four runs of sVAE, three of ALI

    def bars(axes: Axes, colour: str) -> dict[float, float]:
        bars = [bar for bar in axes.patches if isinstance(bar, Rectangle) and bar.get_height()]
        mine = [bar for bar in bars if to_hex(bar.get_facecolor()) == colour.lower()]
        return {round(bar.get_x() + bar.get_width() / 2, 2): bar.get_height() for bar in mine}

    ours, theirs = (bars(left, render.COLOURS[name]) for name in ("svae_r", "alice"))
    assert sorted(ours.values()) == [25.0, 25.0, 50.0] and min(ours) < 1.4
    assert sum(theirs.values()) == pytest.approx(100)
    # In one bin sVAE stands on the left.
    assert max(ours) < max(theirs) < 5.0 and max(theirs) - max(ours) == pytest.approx(
        0.18, abs=0.02
    )
    assert sum(bars(right, render.COLOURS["svae_r"]).values()) == pytest.approx(75)


def test_figure_3_outlines_the_paper_around_the_same_method() -> None:
    """Also beside a method that the paper does not have, and one of whose runs none is drawn."""
    frame = runs.at_own_rate(runs.runs(STUDIES["toy_grid"], mini.FOLDER, "smoke"))
    last = frame[frame["lam"] == 0.1]
    alice = last[last["method"] == "alice"]
    third = alice.assign(method="alice_sigmoid", label="ALICE-sigmoid", score=1.0, mse=np.inf)
    left, right = figures.figure3(pd.concat([third, last], ignore_index=True)).axes
    for axes in (left, right):
        places: dict[str, set[float]] = {}
        for bar in (bar for bar in axes.patches if isinstance(bar, Rectangle)):
            unfilled = to_hex(bar.get_facecolor(), keep_alpha=True).endswith("00")
            filled = "outline" if unfilled else to_hex(bar.get_facecolor())
            if bar.get_height() and bar.get_width() < 0.8:
                places.setdefault(filled, set()).add(round(bar.get_x(), 3))
        ours, theirs = (places[render.COLOURS[m].lower()] for m in ("svae_r", "alice"))
        step, width = (0.4, 0.12) if axes is left else (0.5, 0.15)
        offsets = {round((x - axes.get_xlim()[0]) % step, 3) for x in places["outline"]}
        expected = {round((x - axes.get_xlim()[0]) % step, 3) for x in ours | theirs}
        assert offsets == expected and len(expected) == 2
        assert max(expected) - min(expected) == pytest.approx(width, abs=0.011)


def test_names_are_escaped_in_every_format(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script>|&_\\"
    specs = STUDIES["toy_grid"].specs("smoke")
    kept = STUDIES["toy_grid"].store(tmp_path, "smoke")
    kept.prepare()
    kept.write([row(s, label=evil) for s in specs], [points(s) for s in specs])
    made = report.build("toy_grid", "smoke", tmp_path)
    report.write(made, tmp_path / "out")
    assert "script" not in Page((tmp_path / "out" / "report.html").read_text("utf-8")).tags
    latex = made.tables["scores"].latex()
    assert r"$<$script$>$alert(1)$<$/script$>$|\&\_\textbackslash{}" in latex
    assert r"\|&_" in made.tables["scores"].markdown()


def test_latex_is_booktabs_and_greys_the_paper() -> None:
    assert all(made.latex().isascii() for made in mini.build().tables.values())
    table = Table(
        "t",
        "T",
        "50 % of λ",
        [Column("a_b", text=True), Column("paper", paper=True)],
        [["x", "1 %"]],
    )
    text = table.latex()
    assert text.startswith("\\begin{table}\n")
    for part in (r"\toprule", r"\midrule", r"\bottomrule", r"\textcolor{gray}{1 \%}", r"a\_b"):
        assert part in text
    assert r"50 \% of $\lambda$" in text


def publish_mini(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkout in which the miniature study is published."""
    monkeypatch.setattr(report, "REFERENCE", folder / "results" / "reference")
    monkeypatch.setattr(report, "REFERENCE_REPORTS", folder / "reports" / "reference")
    monkeypatch.setattr(report, "ROOT", folder)
    block = "<!-- report: toy_grid/smoke/scores.md -->\nold\n<!-- end of report -->\n"
    for room in (folder, folder / "models"):
        room.mkdir(exist_ok=True)
        (room / "README.md").write_text(f"# A title\n\n{block}\nafter\n")
    verdicts = "".join(
        f"<!-- report: {name} -->\n<!-- end of report -->\n" for name in report.VERDICTS
    )
    (folder / "README.md").write_text(f"# A title\n\n{block}\nafter\n{verdicts}")
    # The miniature study lacks a run on purpose: its reference is a complete one.
    rows = mini.rows()
    done = {r["id"] for r in rows}
    missing = [s for s in STUDIES["toy_grid"].specs("smoke", seeds=2) if s.id not in done]
    kept = STUDIES["toy_grid"].store(folder / "r", "smoke")
    kept.prepare()
    kept.write([*rows, *map(row, missing)], [points(s) for s in missing])
    report.publish("toy_grid", "smoke", folder / "r")


def test_check_agrees_after_publishing_and_sees_any_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_mini(tmp_path, monkeypatch)
    assert report.main(["--check"]) == 0
    folder = tmp_path / "reports/reference/toy_grid/smoke"
    documents = [tmp_path / "README.md", tmp_path / "models" / "README.md"]
    text = documents[0].read_text()
    assert "| 0.1 | sVAE-r |" in text and "after" in text and "old" not in text

    def told() -> str:
        capsys.readouterr()
        assert report.main(["--check"]) == 1
        return capsys.readouterr().out

    whole = {path: path.read_bytes() for path in (*documents, *folder.iterdir())}
    for path in (*documents, folder / "scores.csv"):
        path.write_bytes(whole[path].replace(b"4.893", b"4.894"))
    (folder / "figure3.svg").write_bytes(whole[folder / "figure3.svg"] + b" ")
    for name in ("profile.narrow.svg", "scatter.png"):
        (folder / name).unlink()
    (folder / "old.png").write_bytes(b"")
    (folder.parent.parent / "more.md").write_text("nothing")
    documents[0].write_text(documents[0].read_text().replace("report: claims.md", "claims"))
    out = told()
    for path in (*documents, folder / "scores.csv"):
        assert f"{path} (rebuilt)" in out
    assert out.count("4.894") == out.count("4.893") == 3
    for name in ("figure3.svg", "profile.narrow.svg", "scatter.png"):
        assert f"{name} is not the file that was published" in out
    assert out.count("is not the file") == 3 and "does not plot" not in out
    for name in ("old.png", "more.md", "claims.md"):
        assert f"{name} belongs to no published rows" in out
    assert "no document shows" in out
    (folder / "old.png").unlink()
    (folder.parent.parent / "more.md").unlink()
    for path, content in whole.items():
        path.write_bytes(content)
    assert report.main(["--check"]) == 0
    rows = mini.rows()
    rows[-1]["inception_score"] = 2.0
    changed = to_bytes(pa.Table.from_pylist(rows, schema=TOY_ROWS))
    (tmp_path / "results/reference/toy_grid/smoke.parquet").write_bytes(changed)
    out = told()
    assert "figure3 does not plot what the rows say" in out and "scores.csv" in out


@pytest.mark.usefixtures("no_pictures")
def test_a_study_is_published_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_mini(tmp_path, monkeypatch)
    specs = STUDIES["toy_grid"].specs("quick", seeds=1)
    small = [s for s in specs if (s.critic_steps, s.model_steps) == (1, 1)]
    cut = len(small) // 2

    def publish(name: str, rows: list[dict[str, Any]], *options: str) -> tuple[int, str]:
        kept = STUDIES["toy_grid"].store(tmp_path / name, "quick")
        kept.write(rows, [points(spec) for spec in specs if spec.id in {r["id"] for r in rows}])
        capsys.readouterr()
        results = ["--results", str(tmp_path / name)]
        words = ["toy_grid", "--scale", "quick", *results, "--publish", "--partial", *options]
        status = report.main(words)
        return status, "".join(capsys.readouterr())

    def published() -> dict[str, dict[str, Any]]:
        table = STUDIES["toy_grid"].load(report.REFERENCE, "quick")[0]
        return {found["id"]: found for found in table.to_pylist()}

    first = [row(spec) for spec in small[:cut]]
    status, said = publish("a", [*first, row(small[-1], dirty=True)])
    assert status == 0 and published().keys() == {r["id"] for r in first}
    assert "not published: 1 rows of uncommitted or unknown code" in said
    assert f"missing: {len(specs) - cut} of {len(specs)} trainings: alice at λ = 0 (" in said
    # More rows join; what is published stays as it is, whatever numbers others have.
    status, said = publish("b", [row(s, 1.0 if s in small[:2] else 4.0) for s in small])
    assert status == 0 and len(published()) == len(small)
    assert published()[small[0].id]["inception_score"] == 4.7
    assert f"{cut} published rows stay" in said
    samples = pd.read_parquet(report.REFERENCE / "toy_grid" / "quick_samples.parquet")
    assert set(samples["id"]) == set(report.build("toy_grid", "quick", report.REFERENCE).shown)
    text = (report.REFERENCE_REPORTS / "toy_grid" / "quick" / "report.md").read_text("utf-8")
    assert "critic updates 1, model updates 1" in text.replace("\N{NO-BREAK SPACE}", " ")
    # Points of a published row that the report did not show before join as well.
    assert {*samples["id"]} != {s.id for s in small}
    rest = [s.id for s in small[:cut] if s.id not in {*samples["id"]}]
    with monkeypatch.context() as shows:
        shows.setattr("bench.studies.toy_grid.figures.shown", lambda frame: {rest[0]})
        status, said = publish("a", first)
    samples = pd.read_parquet(report.REFERENCE / "toy_grid" / "quick_samples.parquet")
    assert status == 0 and samples["id"].to_list() == rest[:1]
    # With --replace they give way, and all others stay.
    status, said = publish("g", [row(s, 3.0) for s in small[:3]], "--replace")
    scores = [published()[spec.id]["inception_score"] for spec in small[:5]]
    assert status == 0 and "3 published rows are replaced" in said
    assert scores == [3.0, 3.0, 3.0, 4.7, 4.7] and len(published()) == len(small)
    # Stale rows are not published; a published row that has become stale makes room.
    status, said = publish("c", [row(spec, method_digest="0" * 12) for spec in small])
    assert status == 2 and "no row of committed code" in said
    half = [row(spec, method_digest="0" * 12) for spec in small[:3]] + [row(small[3])]
    status, said = publish("f", half)
    assert status == 0 and "not published, stale: 1 made by another alice: ALI" in said
    # Devices do not mix, neither under one id nor at one lambda.
    status, said = publish("d", [row(small[0], device="cuda")])
    assert status == 0 and f"not published: row {small[0].id}, device cpu and cuda differ" in said
    other = next(s for s in specs if s not in small and s.lam == 0.1)
    status, said = publish("e", [row(other, device="cuda")])
    assert status == 2 and "rows at λ = 0.1 come from cpu and cuda" in said
    assert len(published()) == len(small)


@pytest.mark.usefixtures("no_pictures")
def test_results_that_lack_published_rows_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_mini(tmp_path, monkeypatch)
    path = report.REFERENCE / "toy_grid" / "smoke.parquet"
    before, study = path.read_bytes(), STUDIES["toy_grid"]
    kept = study.store(tmp_path / "one", "smoke")
    kept.write([row(s) for s in study.specs("smoke")], [])
    words = ["toy_grid", "--scale", "smoke", "--results", str(tmp_path / "one"), "--publish"]
    assert report.main(words) == 2
    assert "published rows, of seeds 1, would go: --partial keeps" in capsys.readouterr().err
    assert path.read_bytes() == before
    path.unlink()
    assert report.main(words) == 0
    assert capsys.readouterr().out.endswith("published: toy_grid at scale smoke\n")
    assert len(pd.read_parquet(path)) == len(study.specs("smoke"))


@pytest.mark.parametrize(
    ("words", "other"),
    [
        (["--check", "--results", "nowhere"], "--check takes no --results"),
        (["toy_grid", "--check"], "--check takes no STUDY"),
        (["--check", "--publish"], "--check takes no --publish"),
        (["toy_grid", "--publish", "--against", "results"], "--publish takes no --against"),
        (["toy_grid", "--publish", "--stale"], "--publish takes no --stale"),
    ],
)
def test_no_option_is_dropped_in_silence(
    words: list[str], other: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.main(words) == 2
    assert other in capsys.readouterr().err


def test_a_report_says_how_many_trainings_ran_as_graphs(tmp_path: Path) -> None:
    specs = smoke()
    made = [row(spec, graph=i < 3, device="cuda") for i, spec in enumerate(specs)]
    kept = STUDIES["toy_grid"].store(tmp_path, "smoke")
    kept.prepare()
    kept.write(made, [])
    assert "; 3 with CUDA graphs; " in report.build("toy_grid", "smoke", tmp_path).origin


def test_a_report_says_what_its_trainings_cost() -> None:
    """Other programs lengthen the clock's time of a core; a GPU's time is the clock's."""
    times = {"train_seconds": [500.0, 300.0, 100.0], "cpu_seconds": [120.0, None, 7.0]}
    frame = pd.DataFrame({**times, "device": ["cpu", "cpu", "cuda"]})
    assert page.spent(frame) == "7 min of cores (1 training by the clock) and 1.67 min of GPUs"
    assert page.spent(frame[:1]) == "2 min of cores"
    assert page.spent(frame[1:2]) == "5 min of cores (by the clock)"
    assert page.scored(frame) == ""
    scored = frame.assign(evaluation_seconds=[60.0, np.nan, 120.0])
    assert page.scored(scored) == ", and scoring 3 min by the clock"


@pytest.mark.usefixtures("no_pictures")
def test_rows_of_other_settings_alone_are_no_part_of_a_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_mini(tmp_path, monkeypatch)
    specs = STUDIES["toy_grid"].specs("paper", given={"epochs": [1]})[:4]
    STUDIES["toy_grid"].store(tmp_path / "a", "paper").write([row(s) for s in specs], [])
    some = ["toy_grid", "--scale", "paper", "--results", str(tmp_path / "a")]
    assert report.main([*some, "--publish", "--partial"]) == 2
    assert "no row is of the study's own trainings at paper" in capsys.readouterr().err
    assert not (report.REFERENCE / "toy_grid" / "paper.parquet").exists()


def test_a_part_of_a_larger_scale_does_not_replace_a_whole_study() -> None:
    page = mini.build()
    pages = {
        ("toy_grid", "quick"): replace(page, missing=0),
        ("toy_grid", "paper"): replace(page, missing=9),
    }
    assert "toy_grid/quick/report.md" in report.verdicts(pages, PAPER)
    assert "toy_grid/paper" not in report.verdicts(pages, PAPER)
    whole = {each: replace(page, missing=0) for each in pages}
    assert "toy_grid/paper/report.md" in report.verdicts(whole, PAPER)


def test_partial_goes_with_publish(capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main(["--partial"]) == 2
    assert "--partial and --replace go with --publish" in capsys.readouterr().err
    assert report.main(["toy_grid", "--scale", "quick", "--publish", "--replace"]) == 2
    assert "--replace goes with --partial" in capsys.readouterr().err


def test_every_claim_stands_in_one_table_with_its_report() -> None:
    """Of the largest scale that is published; links start from where a document lies."""
    page = mini.build()
    pages = {("toy_grid", scale): page for scale in ("smoke", "quick", "paper")}
    found, ours = (report.verdicts(pages, whose) for whose in (PAPER, OURS))
    *lines, blank, notes = found.splitlines()
    says = "At λ = 0.1 sVAE-r and ALICE reconstruct.".replace(
        " = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}"
    )
    verdict = "undecided (no evidence; on 2 of 2 configurations)"
    assert lines[2].startswith(f"| 1a: {says} | {verdict} | sVAE-r 100.0\N{NO-BREAK SPACE}%")
    assert ", alone" not in found and "; over 2" not in found  # these stand in the report
    ids = [re.split(r"[|:]", line)[1].strip() for line in lines[2:]]
    assert ids == ["1a", "1b"] and not blank
    asked = [re.split(r"[|:]", line)[1].strip() for line in ours.splitlines()[2:-2]]
    assert asked == sorted(asked) and {"1b'", "1c", "1d", "1e"} <= {*asked}
    assert len(ids) + len(asked) == len(page.tables["claims"].rows)
    assert all(line.endswith("| toy_grid |") for line in lines[2:])
    assert notes.endswith("Reports: [toy_grid](toy_grid/paper/report.md).")
    assert report.verdicts({("toy_grid", "smoke"): page}, PAPER).count("\n") == 2


def test_a_claim_without_data_is_that_of_the_next_scale() -> None:
    def page(word: str, verdicts: dict[str, str], missing: int = 0) -> Any:
        rows = [
            [id, PAPER, verdict, "It is so.", word, "A rule."] for id, verdict in verdicts.items()
        ]
        return SimpleNamespace(missing=missing, tables={"claims": SimpleNamespace(rows=rows)})

    quick = page("narrow", {"1a": "holds (indicative; on 1 of 2)", "1b": "fails (indicative)"})
    whole = page("wide", {"1a": "fails (on 1 of 2)", "1b": "no data"})
    pages = {("toy_grid", "quick"): quick, ("toy_grid", "paper"): whole, ("mnist", "quick"): quick}
    first, second, third, fourth = report.verdicts(pages, PAPER).splitlines()[2:6]
    assert first == "| 1a: It is so. | fails (on 1 of 2) | wide | toy_grid, paper |"
    assert second == "| 1a: It is so. | holds (on 1 of 2) | narrow | mnist, quick |"
    assert third == "| 1b: It is so. | fails | narrow | toy_grid, quick |"
    assert fourth == "| 1b: It is so. | fails | narrow | mnist, quick |"
    notes = report.verdicts(pages, PAPER).splitlines()[-1]
    assert notes.startswith("Verdicts of scale quick are indicative. Reports: [mnist, quick](mnist")
    # An incomplete study stands behind a complete one of a smaller scale.
    behind = pages | {("toy_grid", "paper"): page("wide", {"1a": "fails"}, missing=1)}
    assert "wide" not in report.verdicts(behind, PAPER)


def test_every_rule_that_changed_is_that_of_a_claim() -> None:
    for folder in sorted(
        path.parent for path in report.REFERENCE_REPORTS.glob("*/quick/changes.csv")
    ):
        claims, changes = (pd.read_csv(folder / f"{name}.csv") for name in ("claims", "changes"))
        named = changes["claim"].str.split(", ").explode()
        assert len(named) and set(named) <= set(claims["claim"]), folder
        assert changes["date"].is_monotonic_increasing and changes.notna().all(axis=None)


def test_what_limits_every_verdict_is_said_once() -> None:
    for name in report.VERDICTS:
        table, notes = (report.REFERENCE_REPORTS / name).read_text("utf-8").split("\n\n")
        assert "Verdicts of scale quick are indicative." in notes and "indicative" not in table


def test_claims_stand_in_the_order_of_their_numbers() -> None:
    by = ["9a: x", "10a: x", "1b: x", "1b'†: x", "11: x", "2: x"]
    assert sorted(by, key=report._by_number) == [
        "1b: x",
        "1b'†: x",
        "2: x",
        "9a: x",
        "10a: x",
        "11: x",
    ]


def test_incomplete_studies_are_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mini, "rows", lambda rows=mini.rows: rows()[1:])
    monkeypatch.setattr(mini, "FOLDER", tmp_path / "mini")
    monkeypatch.setattr(mini, "REPORT", tmp_path / "report")
    mini.main()
    monkeypatch.setattr(report, "REFERENCE", tmp_path / "never")
    with pytest.raises(StoreError, match="only complete studies can be published: 2 missing"):
        report.publish("toy_grid", "smoke", tmp_path / "mini")


@pytest.mark.usefixtures("no_pictures")
def test_other_learning_rates_alone_make_a_report_too(tmp_path: Path) -> None:
    specs = STUDIES["toy_grid"].specs("smoke", lrs=[1e-4])
    kept = STUDIES["toy_grid"].store(tmp_path, "smoke")
    kept.prepare()
    kept.write([row(s) for s in specs], [points(s) for s in specs])
    made = report.build("toy_grid", "smoke", tmp_path)
    assert made.missing == len(specs)  # the study's own rate
    report.write(made, tmp_path / "out")
    assert "on 2 configurations of other settings: learning rate 0.0001" in (
        tmp_path / "out/claims.md"
    ).read_text("utf-8")
    assert "learning rate 0.0001" in (tmp_path / "out/report.md").read_text("utf-8")


def test_figures_and_claims_keep_to_the_studys_own_learning_rate(tmp_path: Path) -> None:
    """The table of scores alone shows others."""
    specs = STUDIES["toy_grid"].specs("smoke", lrs=[1e-4, 1e-3])
    kept = STUDIES["toy_grid"].store(tmp_path, "smoke")
    kept.prepare()
    kept.write([row(s) for s in specs], [points(s) for s in specs])
    made = report.build("toy_grid", "smoke", tmp_path)
    assert len(made.tables["scores"].rows) == 8 and len(made.frame) == len(specs) == 16
    claims = made.tables["claims"]  # 1a: two configurations, not four
    assert claims.rows[0][claims.names.index("evidence")].endswith("over 2 configurations")
    assert made.missing == 0 and not made.warnings
    own = {spec.id for spec in specs if spec.lr == 1e-3}
    assert made.shown and {*made.shown} <= own


def test_results_of_uncommitted_code_are_not_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = STUDIES["toy_grid"].specs("smoke")
    kept = STUDIES["toy_grid"].store(tmp_path, "smoke")
    kept.prepare()
    kept.write([row(s, dirty=True) for s in specs], [])
    monkeypatch.setattr(report, "REFERENCE", tmp_path / "never")
    with pytest.raises(StoreError, match="only results of committed code"):
        report.publish("toy_grid", "smoke", tmp_path)
    assert not (tmp_path / "never").exists()


def compared(ours: list[dict], theirs: list[dict]) -> Table:
    def prepared(rows: list[dict]) -> pd.DataFrame:
        return pd.DataFrame(rows).assign(
            score=lambda f: f["inception_score"],
            top=lambda f: f["score"] > runs.TOP,
            top_good=lambda f: f["top"],
            close=True,
            mse=lambda f: f["mse_x"],
            high_quality_counted=lambda f: f["high_quality"],
        )

    return toy.comparison(prepared(ours), prepared(theirs), Path("there"))


def sample(rng: np.random.Generator, seeds: int, shift: float = 0.0) -> list[dict]:
    configs = [
        ToySpec(study="toy_grid", scale="smoke", method="svae_r", lam=0.1, lr=1e-3 * (1 + i))
        for i in range(40)
    ]
    return [
        {**row(c, float(rng.normal(4.5 + shift, 0.2))), "seed": seed}
        for seed in range(seeds)
        for c in configs
    ]


def test_against_agrees_within_seeds_and_sees_a_real_difference() -> None:
    rng = np.random.default_rng(0)
    agreeing = sum(agrees(compared(sample(rng, 1), sample(rng, 5))) for _ in range(40))
    assert agreeing >= 36  # family-wise level 5 %
    found = compared(sample(rng, 1, shift=-1.0), sample(rng, 5))
    assert not agrees(found)
    assert "differ" in found.caption
    for seeds, lr in ((1, 1.0), (5, 2.0)):  # one seed; no configuration in common
        other = [{**r, "config": f"{r['config']}{lr}"} if lr > 1 else r for r in sample(rng, seeds)]
        with pytest.raises(UsageError, match="nothing to compare with in there"):
            compared(sample(rng, 1), other)
    half = [r if r["seed"] else {**r, "label": "ALICE"} for r in sample(rng, 3)]
    assert "nothing in common: ALICE at λ = 0.1." in compared(half, sample(rng, 5)).caption


def test_report_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments, message in (
        (["nothing"], "unknown study 'nothing'; allowed: toy_grid"),
        ([], "no results in results: python -m bench.run toy_grid"),
        (["toy_grid", "--scale", "quick"], "no results of toy_grid at scale quick"),
        (["--publish"], "--publish needs one STUDY and a --scale"),
    ):
        assert report.main(arguments) == 2
        err = capsys.readouterr().err
        assert message in err and err.count("\n") == 1
    assert (
        report.main(["--results", str(mini.FOLDER), "--out", "o", "--against", str(mini.FOLDER)])
        == 0
    )
    told = (tmp_path / "o/toy_grid/smoke/against.md").read_text("utf-8")
    assert "None of 24 is found to differ" in told
