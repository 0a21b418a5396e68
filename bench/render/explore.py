"""Writes the explorer of a study's results: one page that needs no network and no other file.

Altair writes the specs of its charts, and Vega draws them in the browser. Rows are packed by column
in JSON, gzip and base64; the browser unpacks them. templates/explore.js does all else.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from bench.cli import options
from bench.render.figures import MARKS, looks
from bench.render.html import template
from bench.render.pixels import mosaic
from bench.spec import columns
from bench.store import schema

if TYPE_CHECKING:
    import pyarrow as pa

    from bench.studies.study import Study

EXPLORER = "explore.html"
ROLES = ("score", "error", "share")
"""What the three histograms show; the first two are the axes of the scatter plot."""
ORIGIN = ("classifier", "data_place", "commit", "dirty", "torch", "device", "device_name")
"""What the page says of how a row was made."""
DIGITS, CURVE_DIGITS = 7, 4
"""Significant digits of scores, which the page rounds once more, and of curves."""
POINTS, IMAGES = 256, 64
"""Points and images of each kind that a training shows at most."""
ROOM = 900_000
"""Bytes that points or images of all trainings take at most, before they become text."""
REACH = 2.5
"""Points are drawn up to so many times as far from the middle as the data."""
OUTSIDE = 255
"""Stands for a coordinate that is not drawn."""

DIRECTION = re.compile(r"[;,]? (higher|lower) is better\.?$")
"""What the line on a column ends with; the page says it beside the column's name."""
TIMES = ("train_seconds", "cpu_seconds", "evaluation_seconds")
SETTINGS = ("n_samples", "n_splits", "neighbour_n", "swd_real", "real_score", "simulated", "steps")
SETTINGS += ("classifier_accuracy", "stand_in", "acceptance")
"""Numbers that tell how a model was scored, and not how well."""
WORDS = {
    "lam": "λ",
    "lr": "learning rate",
    "critic_steps": "critic updates",
    "model_steps": "model updates",
    "inception_score": "inception score",
    "mse_x": "mean squared error of x",
    "mse_z": "mean squared error of z",
    "swd": "sliced Wasserstein distance × 1000",
    "frechet": "Fréchet distance",
    "high_quality": "share of samples of high quality",
    "mode_coverage": "coverage of the modes",
    "neighbour_coverage": "coverage by nearest neighbours",
    "log_likelihood": "log p(x) in nats",
    "kl_pq": "KL(p‖q) in nats",
    "kl_qp": "KL(q‖p) in nats",
    "kl_s": "symmetric KL divergence in nats",
    "kl_s_start": "symmetric KL divergence at the start",
    "energy_x": "energy distance of x",
    "energy_z": "energy distance of z",
    "prior_pq": "KL(p‖q) of the codes in nats",
    "prior_qp": "KL(q‖p) of the codes in nats",
    "real_score": "inception score of real images",
    "swd_real": "sliced Wasserstein distance of training images",
    "n_samples": "samples that were scored",
    "n_splits": "splits of the inception score",
    "neighbour_n": "images whose neighbours were compared",
    "train_seconds": "seconds of training",
    "trace_epoch": "epoch",
    "trace_step": "step",
    "trace_batch": "batch",
    "decoder_gradient": "gradient at the decoder",
}
"""What axes and forms call a column; others go by their heading, or their name."""
SHAPES: dict[str, str] = dict(
    zip(
        MARKS,
        (
            *("circle", "square", "triangle-up", "triangle-down", "diamond", "cross"),
            "M-1,-.6L-.6,-1L0,-.4L.6,-1L1,-.6L.4,0L1,.6L.6,1L0,.4L-.6,1L-1,.6L-.4,0Z",
            *("triangle-left", "triangle-right"),
            "M0,-1L.87,-.5V.5L0,1L-.87,.5V-.5Z",
            "M0,-1L.25,-.33L.95,-.31L.4,.13L.59,.81L0,.42L-.59,.81L-.4,.13L-.95,-.31L-.25,-.33Z",
        ),
        strict=True,
    )
)
"""Vega's name or path of each mark."""

_PACKED = r'(<script id="{}" type="text/plain">)(.*?)(</script>)'
_BUNDLE = re.compile(r'(<script id="bundle">)(.*?)(</script>)', re.DOTALL)


@dataclass(frozen=True)
class Explorer:
    """The explorer of the results of a study at a scale; it reads them when it is written."""

    study: Study[Any]
    scale: str
    results: Path
    place: str = ""  # the folder of results as a command names it, "" for the default

    def html(self) -> str:
        """Returns the page. Equal rows and versions of altair and vl-convert give equal pages."""
        import vl_convert

        data = self.data()
        return template("explore.html.j2").render(
            title=data["title"],
            n=data["n"],
            bundle=vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"),
            charts=_packed(_charts(list(data["methods"].values()))),
            data=_packed(data),
        )

    def data(self) -> dict[str, Any]:
        """Returns all that the page says of the rows, without its charts."""
        table = self.study.load(self.results, self.scale)[0]
        table = table.sort_by("id")  # as good as chance: no method is drawn over all others
        rows = {name: table[name].to_pylist() for name in table.column_names}
        numbers = self._numbers(rows, {field.name: schema.about(field) for field in table.schema})
        fields = [name for name in (*columns(self.study.kind), "status") if name in rows]
        return {
            "title": f"{self.study.title} ({self.scale})",
            "study": self.study.name,
            "scale": self.scale,
            "n": len(table),
            "methods": _methods(rows["method"], rows["label"]),
            "own": self._own(rows["config"]),
            "roles": _roles(self.study.explored, numbers),
            "numbers": numbers,
            "fields": [_field(name, rows[name]) for name in fields],
            "texts": {name: _coded(rows[name]) for name in ("id", "label", "config")},
            "origin": {name: _coded(rows[name]) for name in ORIGIN if name in rows},
            "commands": _coded(list(self._commands(table))),
            "curves": self._curves(rows),
            **self._samples(rows),
        }

    def _numbers(
        self, rows: Mapping[str, list[Any]], about: Mapping[str, str]
    ) -> list[dict[str, Any]]:
        """Returns every measured number that any row has; `about` explains columns."""
        metrics = self.study.metrics()
        headings = {each.columns[0]: each.heading for each in metrics}
        measured = dict.fromkeys(name for each in metrics for name in each.columns)
        own = self.study.columns()
        measured |= dict.fromkeys(name for name in own if own[name] in (int, float, bool))
        found = []
        for name in (*measured, "train_seconds"):
            values = [_short(value, DIGITS) for value in rows.get(name, [])]
            if any(value is not None for value in values):
                words = WORDS.get(name) or headings.get(name) or name.replace("_", " ")
                meaning = about.get(name, "")
                known = {"name": name, "words": words, "about": DIRECTION.sub("", meaning)}
                known |= {"better": schema.better(meaning), "setting": name in SETTINGS}
                found.append(known | _coded(values))
        return found

    def _own(self, configs: Sequence[str]) -> dict[str, Any] | None:
        """Returns which rows have the study's own settings, None where all or none have them."""
        own = {spec.config for spec in self.study.specs(self.scale)}
        found = [config in own for config in configs]
        return _coded(found) if len({*found}) > 1 else None

    def _commands(self, table: pa.Table) -> Iterator[str]:
        """Yields what follows the id in the command that trains each row again."""
        names = [name for name in ("plugins", "data_place") if name in table.column_names]
        for row in table.select(names).to_pylist():
            # In the order in which they were loaded: a grid may name a plug-in's method.
            files = [name for name, _ in row.get("plugins") or ()]
            yield options(None, self.place, files, row.get("data_place"))

    def _curves(self, rows: Mapping[str, list[Any]]) -> dict[str, Any] | None:
        """Returns what was traced while each training ran, None for a study that traces nothing.

        Of numbers by method a training shows those of its own method.
        """
        kinds = self.study.columns()
        at = next((name for name, kind in kinds.items() if kind == "ints"), None)
        if at is None:
            return None
        lines = [name for name, kind in kinds.items() if kind == "floats"]
        maps = [name for name, kind in kinds.items() if kind == "float32s by name"]
        found = []
        for i, method in enumerate(rows["method"]):
            steps = rows[at][i]
            series = {WORDS.get(name, name.replace("_", " ")): rows[name][i] for name in lines}
            for name in maps:
                named = dict(rows[name][i] or ())
                named = {method: named[method]} if method in named else named
                words = WORDS.get(name, "")
                series |= {f"{words} ({key})" if words else key: named[key] for key in named}
            kept = {key: y for key, y in series.items() if steps and y and len(y) == len(steps)}
            found.append({k: [_short(y, CURVE_DIGITS) for y in kept[k]] for k in kept})
        names = list(dict.fromkeys(name for each in found for name in each))
        lined = [[each.get(name) for each in found] for name in names]
        return {
            "x": WORDS.get(at, at),
            "at": _coded([steps or [] for steps in rows[at]]),
            "series": [{"words": k, "y": y} for k, y in zip(names, lined, strict=True)],
        }

    def _samples(self, rows: Mapping[str, list[Any]]) -> dict[str, Any]:
        """Returns points or images of trainings that kept any and may show them."""
        kinds = self.study.sample_columns()
        shown = {"x", "x_rec", "samples"}
        if not shown <= kinds.keys():
            return {}
        order = {id: i for i, id in enumerate(rows["id"])}
        kept = self.study.store(self.results, self.scale).load_samples().to_pylist()
        found = sorted(
            ((order[row["id"]], row) for row in kept if row["id"] in order), key=itemgetter(0)
        )
        rowed = ({name: each[i] for name, each in rows.items()} for i, _ in found)
        found = [each for each, row in zip(found, rowed, strict=True) if self.study.shows(row)]
        if not found:
            return {}
        if "shape" in kinds:
            return {"images": _images(found)}
        return {"points": _points(found)} if kinds["samples"] == "float32s" else {}


def said(html: str) -> str:
    """Returns what a page says: its text, and its data as JSON, without Vega and charts.

    Raises ValueError for a page of another kind.
    """
    data = re.search(_PACKED.format("data"), html, re.DOTALL)
    if data is None:
        raise ValueError("this page holds no data")
    said = json.dumps(unpacked(data[2]), indent=0, ensure_ascii=False)
    rest = _BUNDLE.sub(r"\1\3", html)
    for name in ("charts", "data"):
        rest = re.sub(_PACKED.format(name), r"\1\3", rest, flags=re.DOTALL)
    return f"{rest}\n{said}\n"


def unpacked(text: str) -> Any:
    """Returns what `_packed` has packed."""
    return json.loads(gzip.decompress(base64.b64decode(text)))


def _packed(content: Any) -> str:
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def _short(value: Any, digits: int) -> Any:
    """Returns a number with so many digits, None for nan, and words for what JSON has not."""
    if value is None or value != value:
        return None
    if isinstance(value, float):
        if math.isinf(value):
            return "inf" if value > 0 else "-inf"
        value = float(f"{value:.{digits}g}")
        return int(value) if value == int(value) and abs(value) < 1e15 else value
    return int(value)


def _coded(values: Sequence[Any]) -> dict[str, Any]:
    """Returns a column of JSON, by levels and the place of each value where that is shorter."""
    keys = [json.dumps(value) for value in values]
    levels = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    if len(levels) == 1:
        return {"levels": [values[0]]}
    if len(levels) * 4 > len(values):
        return {"values": list(values)}
    firsts = [json.loads(key) for key in levels]
    return {"levels": firsts, "codes": [levels[key] for key in keys]}


def _field(name: str, values: Sequence[Any]) -> dict[str, Any]:
    """Returns a field of the specs, whose levels are in order."""
    values = [None if value is None or value != value else value for value in values]
    levels = sorted({*values}, key=lambda value: (value is None, value if value is not None else 0))
    place = {value: i for i, value in enumerate(levels)}
    codes = {"codes": [place[value] for value in values]} if len(levels) > 1 else {}
    return {
        "name": name,
        "words": WORDS.get(name, name.replace("_", " ")),
        "levels": levels,
    } | codes


def _roles(
    asked: Mapping[str, Sequence[str]], numbers: Sequence[Mapping[str, Any]]
) -> dict[str, str]:
    """Returns the column of each role: the first with values of those asked for, else another."""
    varied = [each["name"] for each in numbers if len(each.get("levels", "..")) > 1]
    varied = [name for name in varied if not name.endswith(("_sd", "_se"))]
    there, found = {each["name"] for each in numbers}, {}
    for role in ROLES:
        wanted = [name for name in asked.get(role, ()) if name in there]
        spare = [name for name in varied if name not in (*TIMES, *SETTINGS)]
        free = [name for name in (*wanted, *spare) if name not in found.values()]
        if free:
            found[role] = free[0]
    return found


def _methods(methods: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    """Returns the look of each method, and its labels."""
    named: dict[str, dict[str, None]] = {}
    for method, label in zip(methods, labels, strict=True):
        named.setdefault(method, {})[label] = None
    return {
        method: {"colour": look.colour, "shape": SHAPES[look.mark], "labels": sorted(named[method])}
        for method, look in looks(named).items()
    }


Kept = Sequence[tuple[int, Mapping[str, Any]]]
"""Places of trainings among the rows, and what was kept of them."""


def _points(kept: Kept) -> dict[str, Any]:
    """Returns points of the plane as bytes, so many that all of them have ROOM."""
    data = np.concatenate([np.asarray(row["x"] or (), np.float64) for _, row in kept])
    reach = REACH * float(np.abs(data[np.isfinite(data)]).max(initial=1e-3) or 1.0) / 2
    number = max(16, min(POINTS, ROOM // (5 * len(kept))))

    def text(flat: Sequence[float] | None) -> str:
        x = np.asarray(flat or (), np.float64)[: 2 * number]
        inside = np.isfinite(x) & (np.abs(x) <= reach)
        steps = np.rint((np.where(inside, x, 0) / reach + 1) / 2 * (OUTSIDE - 1))
        return base64.b64encode(
            np.where(inside, steps, OUTSIDE).astype(np.uint8).tobytes()
        ).decode()

    kinds = {kind: _coded([text(row[kind]) for _, row in kept]) for kind in SAMPLES}
    return {"rows": [i for i, _ in kept], "reach": float(f"{reach:.3g}"), **kinds}


SAMPLES = {"x": "test data", "x_rec": "reconstructions", "samples": "samples from the prior"}


def _images(kept: Kept) -> dict[str, Any]:
    """Returns mosaics in base64, of so many images that all of them have ROOM."""
    for across in (8, 6, 5, 4, 3, 2):
        made = [{kind: _mosaic(row, kind, across) for kind in SAMPLES} for _, row in kept]
        different = {each[kind] for each in made for kind in SAMPLES}
        if sum(map(len, different)) <= ROOM or across == 2:
            break
    total, rows, shown = 0, [], []
    seen: set[bytes] = set()
    for (i, _), each in zip(kept, made, strict=True):
        fresh = {*each.values()} - seen
        if (total := total + sum(map(len, fresh))) > ROOM:
            break
        seen |= fresh
        rows.append(i)
        shown.append(each)

    def texts(kind: str) -> dict[str, Any]:
        return _coded([base64.b64encode(each[kind]).decode() for each in shown])

    kind = "png" if kept[0][1]["shape"][0] == 1 else "webp"
    return {"rows": rows, "type": kind, **{kind: texts(kind) for kind in SAMPLES if shown}}


def _mosaic(row: Mapping[str, Any], kind: str, across: int) -> bytes:
    """Returns a PNG or WebP of the first across² images, b"" where there are none."""
    c, h, w = row["shape"]
    images = np.frombuffer(row[kind] or b"", np.uint8).reshape(-1, c, h, w)[: across**2]
    if not len(images):
        return b""
    pixels = mosaic(images, -(-len(images) // across), across)
    content = io.BytesIO()
    if c == 1:
        Image.fromarray(pixels).save(content, "PNG", optimize=True)
    else:  # as PNG colours take three times the room
        Image.fromarray(pixels).save(content, "WEBP", quality=90)
    return content.getvalue()


def _charts(methods: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns the Vega-Lite spec of each kind of chart; the page fills in titles and data."""
    import altair as alt

    places = list(range(len(methods)))
    paint = alt.Scale(domain=places, range=[each["colour"] for each in methods])
    shape = alt.Scale(domain=places, range=[each["shape"] for each in methods])
    grey = alt.value("#7a7a7a")

    def of(name: str) -> alt.Chart:
        return alt.Chart(alt.NamedData(name=name))

    colour = alt.Color("m:N", scale=paint, legend=None)
    count = alt.Y("to:Q", title="runs", axis=alt.Axis(tickMinStep=1, tickCount=4, format="~s"))
    bar = {"x": alt.X("lo:Q"), "x2": "hi:Q", "y": count, "y2": "from:Q"}
    across = alt.selection_interval(name="brush", encodings=["x"])
    histogram = alt.layer(
        of("all").mark_bar(binSpacing=0, opacity=0.3, clip=True).encode(**bar, color=grey),
        of("some").mark_bar(binSpacing=0, clip=True).encode(**bar, color=colour),
    )
    xy = {"x": alt.X("u:Q"), "y": alt.Y("v:Q")}  # x and y would clash with signals of the brush
    form = alt.Shape("m:N", scale=shape, legend=None)
    both = alt.selection_interval(name="brush", encodings=["x", "y"])
    dots = alt.layer(
        of("all").mark_point(filled=True, size=14, opacity=0.25).encode(**xy, color=grey),
        of("some")
        .mark_point(filled=True, size=22, opacity=0.75)
        .encode(**xy, color=colour, shape=form),
        of("one").mark_point(size=220, strokeWidth=3, opacity=1).encode(**xy, shape=form),
    )
    curve = of("curve").mark_line(point=True).encode(**xy)
    plane = alt.layer(
        of("x").mark_point(filled=True, size=8, opacity=0.6).encode(**xy, color=grey),
        of("made").mark_point(filled=True, size=10, opacity=0.8).encode(**xy),
    )
    charts = {
        "histogram": histogram.add_params(across).properties(height=120),
        "scatter": dots.add_params(both).properties(height=340),
        "curve": curve.properties(height=110),
        "plane": plane.properties(height=150),
    }
    return {name: chart.properties(width="container").to_dict() for name, chart in charts.items()}
