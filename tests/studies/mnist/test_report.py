"""What is said of MNIST, and what the reports of all image studies share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bench import report
from bench.cli import UsageError
from bench.render.compare import agrees
from bench.render.tables import Table, spread
from bench.scores.metrics import IMAGES
from bench.studies import STUDIES
from bench.studies.images import figures
from bench.studies.images import runs as frames
from bench.studies.images.report import comparison
from bench.studies.images.spec import ImageSpec
from bench.studies.mnist.report import mnist_claims, sweep, table1
from models.methods import METHODS

ANCHORS = {
    "phase-randomised: inception_score": 2.0,
    "phase-randomised: frechet": 40.0,
    "mean image: mse_x": 0.27,
}


def rows(seeds: int = 2) -> list[dict[str, Any]]:
    """Made-up rows of the smoke study: every default cell and one diverged run."""
    found = []
    specs = STUDIES["mnist"].specs("smoke", seeds=seeds)
    for one in specs:
        name = METHODS[one.method].label
        found.append(
            {
                "id": one.id,
                "config": one.config,
                "protocol": 1,
                "label": name,
                "status": "ok",
                **{field: getattr(one, field) for field in vars(one) if field in SPEC_FIELDS},
                "inception_score": 8.0 + 0.5 * (one.method == "svae_r") + 0.01 * one.seed,
                "inception_sd": 0.1,
                "real_score": 9.9,
                "frechet": 5.0,
                "n_splits": 10,
                "classifier": "mnist referee",
                "classifier_sha256": "f" * 64,
                "classifier_accuracy": 0.9979,
                "mse_x": 0.1,
                "log_likelihood": -100.0 + 10 * (one.method == "svae_r"),
                "log_likelihood_se": 2.0,
                "log_likelihoods": [-100.0 + 10 * (one.method == "svae_r") + i for i in range(5)],
                "bdmc_gap": 5.0 if one.method == "gan" else 0.5,
                "simulated": 2,
                "anchors": ANCHORS,
                "stand_in": True,
                "trace_step": [1, 2],
                "critic_loss": [1.0, 2.0],
                "model_loss": [1.0, 2.0],
                "dirty": False,
                "train_seconds": 1.0,
                "method_digest": STUDIES["mnist"].today().method(one.method),
            }
        )
    gone = dict.fromkeys(("inception_score", "inception_sd", "frechet", "mse_x", "bdmc_gap"))
    found[-1] |= {"status": "diverged", "log_likelihood": None, "log_likelihoods": None, **gone}
    return found


SPEC_FIELDS = ImageSpec.__dataclass_fields__


@pytest.fixture
def page(tmp_path: Path) -> report.Page:
    kept = STUDIES["mnist"].store(tmp_path, "smoke")
    kept.prepare()
    image = np.zeros((64, 1, 28, 28), np.uint8).tobytes()
    samples = [
        {"id": r["id"], "shape": [1, 28, 28], "x": image, "x_rec": image, "samples": image}
        for r in rows(3)
    ]
    kept.write(rows(3), samples)
    return report.build("mnist", "smoke", tmp_path)


def test_table_1_keeps_the_papers_order_and_its_own_columns(page: report.Page) -> None:
    table = page.tables["table1"]
    by_name = {
        row[0]: dict(zip([c.name for c in table.columns], row, strict=True)) for row in table.rows
    }
    first = ["sVAE", "sVAE-r", "ALI", "ALI"]  # the rows are made up and know no ALICE
    paper = ["NF (k = 80)", "PixelRNN", "AVB-AC", "AS-VAE", "GAN", "WGAN-GP", "DCGAN"]
    anchors = ["phase-randomised images", "mean image"]
    assert [row[0] for row in table.rows] == [*first, *paper, "VAE", *anchors]
    assert by_name["phase-randomised images"]["IS (our classifier)"] == "2.00"
    assert by_name["mean image"]["MSE of x"] == "0.270" and by_name["mean image"]["n"] == ""
    assert by_name["sVAE-r"]["paper log p(x) ≥"] == "-79.26"
    assert by_name["sVAE-r"]["log p(x) ≥, nats"] == "-90.00 ± 0.00"
    assert by_name["sVAE-r"]["IS (our classifier)"] == "8.51 ± 0.01"
    assert by_name["GAN"]["log p(x) ≥, nats"] == "not converged (-100.00 ± 0.00)"
    assert by_name["GAN"]["paper IS"] == "8.34"
    assert by_name["PixelRNN"]["log p(x) ≥, nats"] == "cited only"
    assert sum(int(row[-1] or 0) for row in table.rows) == 1
    assert "SYNTHETIC" in table.caption and "8.45" in table.caption and "9.279" in table.caption
    cited = {"paper log p(x) ≥", "paper IS", "ALICE's own IS", "ALICE's own MSE"}
    assert {c.name for c in table.columns if c.paper} == cited
    assert by_name["ALI"]["ALICE's own IS"] == "9.26 ± 0.04"  # at λ = 0.1


def test_scores_that_are_younger_than_rows_have_columns_where_there_are_values(
    page: report.Page,
) -> None:
    known, before = page.frame, page.tables["table1"]
    heads = ["precision", "recall", "density", "coverage", "SWD × 1000"]
    columns = [m.columns[0] for m in IMAGES if m.heading in heads]
    assert len(columns) == 5 and not {*heads} & {*before.names}
    assert not any(word in before.caption for word in ("SWD", "Precision", "Coverage"))
    noise = dict.fromkeys((f"noise: {name}" for name in columns), 0.0)
    anchors = pd.Series([[*(ANCHORS | noise).items()]] * len(known))
    scores = dict.fromkeys(columns, 0.5) | {"swd": 40.0, "swd_real": 7.0}
    after = table1(known.assign(**scores, anchors=anchors), IMAGES)
    at = before.names.index("MSE of x")
    assert after.names[: at + 2] == [*before.names[:at], "SWD × 1000", "MSE of x"]
    assert after.names[at + 2 :] == [*heads[:4], *before.names[at + 1 :]]
    by_name = {row[0]: dict(zip(after.names, row, strict=True)) for row in after.rows}
    assert [by_name["uniform noise"][head] for head in heads] == ["0.00"] * 4 + ["0.0"]
    assert by_name["GAN"]["coverage"] == "0.50 ± 0.00" and by_name["PixelRNN"]["recall"] == ""
    said = (*(f"{head.capitalize()} is" for head in heads[:4]), "training images have 7.0")
    assert all(words in after.caption for words in said)
    some = known.assign(neighbour_recall=pd.Series([0.5]))
    assert (
        f"{len(some) - 2} of {len(some)} trainings have no recall" in table1(some, IMAGES).caption
    )


def verdicts(frame: pd.DataFrame) -> dict[str, str]:
    return {claim.id: claim.verdict for claim in mnist_claims(frame)}


def test_claims_follow_their_rules(page: report.Page) -> None:
    frame = page.frame
    said = verdicts(frame)
    assert (said["2a"], said["2b"], said["2c"]) == ("holds", "fails", "holds")
    assert verdicts(frame.assign(log_likelihoods=moved(frame, 15.0)))["2b"] == "holds"
    assert verdicts(frame.assign(bdmc_gap=9.0))["2a"] == "undecided"
    # One rival of Table 1 that is better is enough, also the one that the paper leaves out.
    better = frame["inception_score"] + 2.0 * (frame["method"] == "dcgan")
    assert verdicts(frame.assign(inception_score=better))["2c"] == "fails"
    noise = {"phase-randomised: inception_score": 8.3}
    loud = frame.assign(anchors=pd.Series([[*noise.items()]] * len(frame)))
    (claim,) = (each for each in mnist_claims(loud) if each.id == "2c")
    assert claim.verdict == "not tested" and "8.30" in claim.evidence
    none = {each.id: each for each in mnist_claims(frame[frame["method"] == "gan"])}
    assert {each.verdict for each in none.values()} == {"no data"}
    assert none["2a"].evidence == "not measured: sVAE-r, NF"
    assert none["2c"].evidence == "not measured: sVAE, WGAN-GP, DCGAN"  # GAN is there


def test_runs_without_a_likelihood_give_no_verdict_on_it(page: report.Page) -> None:
    frame = page.frame
    for lost in ({"bdmc_gap": np.nan}, {"log_likelihood": np.nan, "log_likelihoods": None}):
        said = verdicts(frame.assign(**lost))
        assert said["2a"] == said["2b"] == "no data" and said["2c"] == "holds"
    two = verdicts(frame[frame["seed"] < 2])
    assert two["2a"] == two["2b"] == two["2c"] == "undecided"


def test_other_critics_and_annealings_have_tables_of_their_own(tmp_path: Path) -> None:
    """As the commands of reports/README.md train them: other critics without annealing."""
    kept = STUDIES["mnist"].store(tmp_path, "smoke")
    kept.prepare()
    first = next(r for r in rows(1) if (r["method"], r["lam"]) == ("svae_r", 0.0))
    ids = (f"{i:016x}" for i in range(9))
    others = [
        {**first, "id": next(ids), "critic": "additive", "ais_images": 0, "log_likelihood": None},
        {**first, "id": next(ids), "ais_images": 20},
        {**first, "id": next(ids), "ais_images": 0, "log_likelihood": None},
        {**first, "id": next(ids), "width": 0.5, "ais_images": 0},
    ]
    kept.write([*rows(1), *others], [])
    page = report.build("mnist", "smoke", tmp_path)
    assert {row[1] for row in page.tables["critics"].rows} == {"joint", "additive"}
    assert [row[2] for row in page.tables["annealing"].rows] == ["10", "20"]
    assert [row[0] for row in page.tables["settings"].rows] == [
        "ais_images 0",
        "width 0.5, ais_images 0",
    ]


def moved(frame: pd.DataFrame, by: float, seed: int | None = None) -> pd.Series:
    """log p(x) of every image, of one seed alone or of all, by so many nats higher."""
    pairs = zip(frame["log_likelihoods"], frame["seed"], strict=True)
    return pd.Series(
        [None if x is None else [v + by * (seed in (None, s)) for v in x] for x, s in pairs]
    )


def test_a_likelihood_has_errors_of_images_and_of_seeds(page: report.Page) -> None:
    """Images that agree say nothing of seeds that don't, and the other way round."""
    frame = page.frame
    frame = frame[frame["method"].isin(("svae_r", "nf_vae")) & (frame["status"] == "ok")]
    frame = frame.reset_index(drop=True)
    assert verdicts(frame)["2a"] == "holds"
    seeds = frame.assign(log_likelihoods=moved(frame, 20.0, seed=1))
    assert verdicts(seeds)["2a"] == "undecided"
    mine = frame["method"] == "svae_r"
    images = [
        [v + 30.0 * (i - 2) * own for i, v in enumerate(x)]
        for x, own in zip(frame["log_likelihoods"], mine, strict=True)
    ]
    assert verdicts(frame.assign(log_likelihoods=pd.Series(images)))["2a"] == "undecided"
    lone = frame[frame["seed"] == 0]  # nobody knows how trainings vary
    assert verdicts(lone)["2a"] == "undecided"


def test_a_sweep_stays_out_of_table_1_unless_it_is_all_there_is(page: report.Page) -> None:
    frame = page.frame
    swept = frame[frame["method"] == "svae_r"].assign(lam=100.0)
    both = pd.concat([frame, swept], ignore_index=True)
    assert frames.headline(both, STUDIES["mnist"], "smoke").equals(frame)
    assert frames.headline(swept, STUDIES["mnist"], "smoke").equals(swept)
    (row,) = sweep(swept, IMAGES).rows
    assert row[:2] == ["sVAE", "100"] and row[-2] == str(len(swept))


def _again(rng: np.random.Generator, seeds: int, drift: float = 1.0, **all_of: Any) -> pd.DataFrame:
    """Runs whose scores vary over seeds by a tenth, their log-likelihoods by a nat."""
    found = pd.DataFrame([r for r in rows(seeds) if r["status"] == "ok"])
    for column in ("inception_score", "frechet", "mse_x"):
        found[column] *= drift * np.exp(rng.normal(0, 0.1, len(found)))
    found["log_likelihood"] += rng.normal(0, 1, len(found))
    specs = pd.DataFrame([vars(one) for one in STUDIES["mnist"].specs("smoke", seeds=1)])
    shared = {name: specs[name].iloc[0] for name in frames.SETTINGS if name not in found}
    names = ("data_sha256", *(metric.columns[0] for metric in IMAGES))
    lacking = dict.fromkeys(name for name in names if name not in found)
    return found.assign(**shared, **lacking, **all_of)


def test_against_agrees_within_seeds_and_sees_a_real_difference() -> None:
    rng = np.random.default_rng(0)

    def compared(seeds: int, drift: float = 1.0, there: int = 5, **here: Any) -> Table:
        ours = _again(rng, seeds, drift, **here)
        return comparison(ours, _again(rng, there), IMAGES, "there")

    assert sum(agrees(compared(1)) for _ in range(40)) >= 35  # family-wise level 5 %
    found = compared(3, drift=1.5)
    differ = {row[2] for row in found.rows if row[-1] == "DIFFERS"}
    assert differ == {"IS (our classifier)", "Fréchet (our classifier)", "MSE of x"}
    assert not agrees(found) and "differ beyond the spread" in found.caption
    one = next(row for row in found.rows if row[2] == "log p(x) ≥, nats")
    assert float(one[5]) == pytest.approx(float(one[3]) - float(one[4]), abs=0.011)
    score = next(row for row in found.rows if row[2] == "IS (our classifier)" and row[1] == "GAN")
    assert float(score[4]) == pytest.approx(8, rel=0.15)  # a geometric mean of scores near 8
    assert float(score[5].removeprefix("× ")) == pytest.approx(1.5, rel=0.3)
    with pytest.raises(UsageError, match="it has one seed only"):
        compared(5, there=1)
    with pytest.raises(UsageError, match="no method in common at one λ"):
        compared(5, method="another")
    with pytest.raises(UsageError, match=f"classifier_sha256 is {'f' * 64}, not another"):
        compared(5, classifier_sha256="another")
    gone = {"status": "diverged", "inception_score": np.nan, "mse_x": np.nan, "frechet": np.nan}
    lost = compared(3, **gone, log_likelihood=np.nan)
    assert not agrees(lost) and {row[2] for row in lost.rows} == {"diverged"}
    assert {tuple(row[3:5]) for row in lost.rows} >= {("3 of 3", "0 of 5")}
    some = _again(rng, 3)
    some.loc[some.index[0], list(gone)] = list(gone.values())
    beside = comparison(some, _again(rng, 5), IMAGES, "there")
    assert [[*row[3:5], row[-1]] for row in beside.rows if row[2] == "diverged"] == [
        ["1 of 3", "0 of 5", "no difference found"]
    ]
    here, there = (_again(rng, 5).assign(data_sha256=each * 32) for each in ("cd", "ab"))
    assert "not all ours" not in comparison(here, here, IMAGES, "there").caption
    beside = comparison(here, there, IMAGES, "there")
    assert "there (whose images are not all ours: abababababab)" in beside.caption
    wild = _again(rng, 2)
    wild["mse_x"] *= np.exp(40.0 * wild["seed"])
    assert "> × 1000" in {row[6] for row in comparison(wild, wild, IMAGES, "there").rows}
    with pytest.raises(UsageError, match=r"width is 0\.125, not 0\.5"):
        compared(5, width=0.5)


def test_shares_are_compared_as_they_are() -> None:
    """A recall of 0 has no logarithm; that of another method is found to differ all the same."""
    rng = np.random.default_rng(0)

    def runs(lift: float) -> pd.DataFrame:
        found = _again(rng, 5)
        recall = np.where(found["method"] == "gan", 0.0, 0.4 + lift * (found["method"] == "vae"))
        return found.assign(neighbour_recall=recall + rng.uniform(0, 0.02, len(found)))

    table = comparison(runs(0.2), runs(0.0), IMAGES, "there")
    found = {row[1]: row for row in table.rows if row[2] == "recall"}
    assert [label for label, row in found.items() if row[-1] == "DIFFERS"] == ["VAE"]
    assert float(found["VAE"][5]) == pytest.approx(0.2, abs=0.02)
    assert 0 <= float(found["GAN"][3]) <= 0.02 and "coverage have plain means" in table.caption
    assert "coverage" not in comparison(_again(rng, 5), _again(rng, 5), IMAGES, "there").caption


def test_another_precision_stands_beside_and_nowhere_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = STUDIES["mnist"].store(tmp_path, "smoke")
    kept.prepare()
    kept.write(rows(), [])
    alone = report.build("mnist", "smoke", tmp_path)
    rounded = [
        {**r, "id": f"{i:016x}", "precision": "bf16", "inception_score": 5.0, "mse_x": 0.1}
        for i, r in enumerate(rows(1)[:-1])
    ]
    kept.write(rounded, [])
    both = report.build("mnist", "smoke", tmp_path)
    beside = both.tables["bf16"]
    assert [c.name for c in beside.columns][3:5] == ["bf16", "float32"]
    assert {row[-1] for row in beside.rows if row[2] == "IS (our classifier)"} == {"DIFFERS"}
    assert "against" not in both.tables  # it is no comparison that was asked for
    for name, table in alone.tables.items():
        assert both.tables[name].rows == table.rows
    assert f"{len(rounded)} trainings in bf16" in "".join(both.notes)
    (tmp_path / "elsewhere").mkdir()
    there = ["mnist", "--scale", "smoke", "--results", str(tmp_path)]
    there += ["--out", str(tmp_path / "o"), "--against"]
    assert report.main([*there, str(tmp_path)]) == 0
    assert report.main([*there, str(tmp_path / "elsewhere")]) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert "nothing to compare with in" in last


def test_other_settings_stay_out_of_the_table(tmp_path: Path) -> None:
    mixed = rows(seeds=1)
    other = dict(mixed[0], id="ab" * 8, temperatures=7)
    kept = STUDIES["mnist"].store(tmp_path, "smoke")
    kept.prepare()
    kept.write([*mixed, other], [])
    frame = frames.runs(STUDIES["mnist"], tmp_path, "smoke")
    assert len(frame) == len(mixed) and frame.attrs["others"] == 1
    assert frames.missing(frame, STUDIES["mnist"], "smoke") == 0
    assert frames.missing(frame.iloc[1:], STUDIES["mnist"], "smoke") == 1
    assert frames.missing(frame.assign(id="ab" * 8), STUDIES["mnist"], "smoke") == len(mixed)
    mine = frames.runs(STUDIES["mnist"], tmp_path, "smoke", like=pd.DataFrame([other]))
    assert mine["temperatures"].tolist() == [7]  # what is compared with those alone


def test_settings_that_are_not_the_study_s_own_stand_in_every_title(tmp_path: Path) -> None:
    kept = STUDIES["mnist"].store(tmp_path, "smoke")
    kept.prepare()
    longer = [{**r, "id": f"{i:016x}", "epochs": 7} for i, r in enumerate(rows())]
    kept.write(longer, [])
    page = report.build("mnist", "smoke", tmp_path)
    assert page.tables["table1"].title == "Table 1, epochs 7"
    shown = [*(page.tables.keys() - {"claims", "changes"}), *(each.name for each in page.pictures)]
    titles = {each.name: each.title for each in [*page.tables.values(), *page.pictures]}
    assert all(titles[name].endswith(", epochs 7") for name in shown) and len(shown) > 4
    assert "No training has the study's own settings. These differ: epochs 7." in page.warnings
    assert page.missing == len(rows(1))
    kept.write(rows(seeds=1), [])
    own = report.build("mnist", "smoke", tmp_path)
    assert own.tables["table1"].title == "Table 1"


def test_precisions_are_compared_at_any_settings(tmp_path: Path) -> None:
    kept = STUDIES["mnist"].store(tmp_path, "smoke")
    kept.prepare()
    longer = [
        {**r, "id": f"{i:04x}{j:012x}", "precision": precision, "epochs": 7}
        for i, precision in enumerate(("float32", "bf16"))
        for j, r in enumerate(rows())
    ]
    kept.write([*rows(seeds=1), *longer], [])
    both = report.build("mnist", "smoke", tmp_path)
    assert both.tables["bf16-epochs-7"].title == "bf16 beside float32, epochs 7"
    assert {row[-1] for row in both.tables["bf16-epochs-7"].rows} == {"no difference found"}
    assert "bf16" not in both.tables  # of one seed, and none in bf16
    assert len(both.frame) == len(rows(seeds=1))


def test_images_of_ones_own_are_not_said_to_be_mnist(page: report.Page) -> None:
    """No classifier knows them, and there is no static binarization of them."""
    scores = ["classifier", "classifier_accuracy", "classifier_sha256", "real_score", "n_splits"]
    frame = page.frame.assign(data="tiny folder abc", stand_in=False, bits="static")
    frame = frame.assign(**dict.fromkeys((*scores, "inception_score", "frechet"), np.nan))
    caption = table1(frame, IMAGES).caption
    assert "tiny folder abc" in caption and "No classifier of the suite knows" in caption
    assert "nan" not in caption and "statically" not in caption


def test_the_page_is_written_whole(page: report.Page, tmp_path: Path) -> None:
    report.write(page, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"figure4.png", "sweep.svg", "sweep.narrow.svg", "curves.svg"} <= names
    assert "figure4.svg" not in names
    text = (tmp_path / "out" / "report.md").read_text("utf-8")
    assert text.index("The images are synthetic") < text.index("## ")
    assert [picture.name for picture in page.pictures] == ["front", "figure4", "sweep", "curves"]
    assert [*page.tables] == ["claims", "table1", "equal", "changes"]
    assert page.main is page.tables["table1"]
    assert all(table.latex().isascii() for table in page.tables.values())


def test_mosaics_lay_images_out_in_rows() -> None:
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 2, 2), np.uint8)
    sheet = figures.mosaic(images, 2, 3)
    assert sheet.shape == (4, 6)
    assert sheet[0, ::2].tolist() == [0, 1, 2] and sheet[3, ::2].tolist() == [3, 4, 5]
    assert spread(pd.Series([1.0, 3.0]), 2) == "2.00 ± 1.41"
