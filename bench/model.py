"""Uses trained models: draws samples, encodes and reconstructs data.

    python -m bench.model sample ID --out FILE         samples from the prior
    python -m bench.model encode ID --out FILE         codes of test data, or of --input
    python -m bench.model reconstruct ID --out FILE    the same data after encoder and decoder

ID is the id of a stored training, or its beginning; `python -m bench.show` lists them. FILE ends
with .png, .npz or .csv. In Python: `from bench import load, specs, train`.

Exit status: 0, 1 if FILE can't be written, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import re
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import plugins
from bench.cli import Parser, UsageError, complain, positive, to_file, to_path
from bench.frame import Found, find
from bench.process import command
from bench.spec import Spec, columns
from bench.studies import STUDIES
from bench.studies.study import SCALES, Job, Study

if TYPE_CHECKING:
    import numpy as np

    from bench.studies.trained import TrainedModel

SUFFIXES = (".png", ".npz", ".csv")
SAMPLES, IMAGES = 1024, 64
"""Points and images that a command draws, encodes or reconstructs by default."""


def specs(study: str, scale: str, **fields: Any) -> list[Spec]:
    """Returns a study's trainings at a scale, with values of fields in the place of its own.

    A field has a value or a list of values: `specs("toy_grid", "quick", method="svae_r", lam=0.1)`.
    Fields are those of `bench.spec.Spec` and of the study's own kind of spec. Raises UsageError for
    unknown names, and for values that can't be trained.
    """
    plugins.load()
    if study not in STUDIES:
        raise UsageError(f"unknown study {study!r}; allowed: {', '.join(STUDIES)}")
    if scale not in SCALES:
        raise UsageError(f"unknown scale {scale!r}; allowed: {', '.join(SCALES)}")
    chosen, known = STUDIES[study], columns(STUDIES[study].kind)
    given = {}
    for name, value in fields.items():
        if name not in known or name in ("study", "scale"):
            allowed = ", ".join(each for each in known if each not in ("study", "scale"))
            raise UsageError(f"unknown field {name!r}; allowed: {allowed}")
        value = value.tolist() if hasattr(value, "tolist") else value  # of numpy or pandas
        single = isinstance(value, str) or not isinstance(value, Sequence)
        given[name] = [value] if single else [*value]
        if not given[name]:
            raise UsageError(f"{name} is {value!r}; allowed: a value, or a list of values")
    methods, lams = given.pop("method", None), given.pop("lam", None)
    every = chosen.every_method()
    if unknown := [method for method in methods or () if method not in every]:
        raise UsageError(f"unknown method {unknown[0]!r}; allowed: {', '.join(every)}")
    try:
        return chosen.specs(scale, methods, lams, given=given)
    except (TypeError, ValueError) as error:
        raise UsageError(str(error)) from None


def train(
    what: Spec | str,
    *,
    results: Path | str | None = None,
    device: str | None = None,
    data: Path | str | None = None,
) -> TrainedModel:
    """Trains a spec, or once more the spec of a stored id, and returns the model.

    `model.row` has the scores, by the protocol of `bench.run`. With a folder `results` the row and
    the weights are stored there, as a run does. Otherwise nothing is stored. `data` is the place of
    images, see `bench.run --data`. A warning says so if the numbers of a stored id came out
    otherwise, as they may on another processor. Raises UsageError for what can't be trained here
    and for a training that diverged, which has no weights.
    """
    from bench.engine.again import compare, train_once
    from bench.store import provenance
    from bench.store.atomic import process

    plugins.load()
    device = _device(device)
    found = None
    if isinstance(what, str):
        found = find(what, None if results is None else Path(results))
    spec = _spec(_spec_of(found) if found else what)
    study = STUDIES[spec.study]
    place = None if data is None else Path(data)
    (spec,) = study.check([spec], place, None)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) if results is None else Path(results)
        job = Job(
            (spec,),
            str(folder.absolute()),
            device,
            provenance.commit(),
            os.getpid(),
            process(),
            data=place and str(place.absolute()),
            weights="all",
            grid=study.grid,
        )
        row = train_once(study, job)
        if row["status"] != "ok":
            raise UsageError(f"training {spec.id} has diverged, so it has no weights")
        if found:
            compared, differing = compare(study, found.row, row)
            if differing:
                told = f"{len(differing)} of {len(compared)} numbers differ from the stored row"
                warnings.warn(f"{told} {spec.id}: {', '.join(differing)}", stacklevel=2)
        model = _load(study, spec, row, folder, device)
        model.data = place
        return model


def load(
    what: Spec | str | Path, *, results: Path | str | None = None, device: str | None = None
) -> TrainedModel:
    """Returns a trained model: of a stored id or its beginning, of a spec, or of a saved file.

    The id is looked for in the folder `results` (default: "results"), then among the published
    rows. Its weights must have been kept, see `bench.run --keep-weights`. Raises UsageError for no
    such row or file, and where no weights are kept.
    """
    plugins.load()
    device = _device(device)
    id = what.id if isinstance(what, Spec) else str(what)
    if isinstance(what, Path) or re.search(r"[./\\]", id):
        return _from_file(Path(id), device)
    try:
        found = find(id, None if results is None else Path(results))
    except UsageError as error:
        if isinstance(what, Spec) and hasattr(what, "data"):
            why = "images of your own make another spec: `spec` of the model that `train` returns"
            raise UsageError(f"{error}; {why}") from None
        raise
    spec = _spec_of(found)
    if why := found.study.today().stale(found.row):
        warnings.warn(f"row {spec.id} was made by {why}", stacklevel=2)
    return _load(found.study, spec, found.row, found.folder, device)


def _load(
    study: Study[Any], spec: Spec, row: Mapping[str, Any], folder: Path, device: str
) -> TrainedModel:
    from bench.store import weights

    if row["status"] != "ok":
        raise UsageError(f"training {spec.id} has diverged, so it has no weights")
    _know(study, spec)
    try:
        tensors = weights.read(study.store(folder, spec.scale), spec, row)
        return study.model()(spec, tensors, weights.about(spec, row), row, device)
    except weights.Unusable as error:
        again = f"train({spec.id!r}) or python -m bench.run {spec.study} --id {spec.id}"
        raise UsageError(f"{error} of {spec.id} in {folder}; {again} trains it again") from None


def _from_file(path: Path, device: str) -> TrainedModel:
    from bench.store import checkpoint, weights

    if not path.is_file():
        raise UsageError(f"{path} is no file; allowed: what `save` has written")
    try:
        tensors, about = checkpoint.read(path)
        fields = json.loads(about["spec"])
        study = STUDIES[fields["study"]]
        spec = study.kind(**fields)
        if spec.id != about["id"]:
            raise weights.Unusable("is of a spec that today's code gives another id")
        _know(study, spec)
        return study.model()(spec, weights.full(tensors), about, None, device)
    except checkpoint.Damaged:
        raise UsageError(f"{path} is damaged, or no file of weights") from None
    except KeyError as error:
        raise UsageError(
            f"{path} has or knows no {error}; allowed: what `save` has written"
        ) from None
    except (TypeError, ValueError, weights.Unusable) as error:
        raise UsageError(f"{path}: {error}") from None


def _device(asked: str | None) -> str:
    from bench.engine.plan import choose_device

    if asked not in (None, "cpu", "cuda"):
        raise UsageError(f"device is {asked!r}; allowed: cpu, cuda")
    return choose_device(asked)


def _know(study: Study[Any], spec: Spec) -> None:
    """Raises UsageError for a study without weights, and for a method that nobody has loaded."""
    if type(study).model is Study.model:
        raise UsageError(f"{study.name} keeps no weights; its rows have all that it measures")
    if spec.method not in study.every_method():
        raise UsageError(f"{study.name} has no method {spec.method}; load the plug-in that has it")


def _spec(what: object) -> Spec:
    if not isinstance(what, Spec):
        raise UsageError(f"train() takes one spec, or an id; got {type(what).__name__}")
    if what.study not in STUDIES:
        raise UsageError(f"unknown study {what.study!r}; allowed: {', '.join(STUDIES)}")
    _know(STUDIES[what.study], what)
    return what


def _spec_of(found: Found) -> Spec:
    if (spec := found.study.spec_of(found.row)) is None:
        raise UsageError(f"today's code gives the spec of row {found.row['id']} another id")
    return spec


# The command


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command's options."""
    p = Parser("python -m bench.model", __doc__)
    commands = p.add_subparsers(required=True, metavar="COMMAND", dest="what")
    abouts = {
        "sample": "draws samples from the prior",
        "encode": "encodes test data",
        "reconstruct": "encodes and decodes test data",
    }
    for name, about in abouts.items():
        one = commands.add_parser(name, help=about, description=f"{about[0].upper()}{about[1:]}.")
        add = one.add_argument
        add("id", metavar="ID", help="a stored training, or a file that `model.save` has written")
        about = "the file to write: a picture, arrays of numpy, or a table"
        add("--out", type=to_file, required=True, metavar="FILE", help=about)
        about = f"how many (default: {SAMPLES} points or {IMAGES} images"
        about += ")" if name == "sample" else ", or all of --input), at most as many as there are"
        add("--n", type=positive, metavar="N", help=about)
        add("--seed", type=int, default=0, metavar="N", help="seeds all noise (default: 0)")
        about = "looks for ID here, then among the published rows (default: results)"
        add("--results", type=to_path, metavar="DIR", help=about)
        if name != "sample":
            about = """takes x from this file instead of the test data: a .npy; an .npz, of which
                its array x, samples, or only array; a .csv with columns x_0, x_1, ... or samples_0,
                ..., or else all of its columns. Images are in [0, 1], or uint8."""
            add("--input", type=to_path, metavar="FILE", help=about)
            about = "takes images from this place, as the training did, see bench.run"
            add("--data", type=to_path, metavar="DIR|FILE", help=about)
        about = "computes on this device (default: cuda where torch finds a GPU)"
        add("--device", choices=("cpu", "cuda"), help=about)
        plugins.add_option(one)
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    args = parser().parse_args(arguments)
    try:
        plugins.load(args.plugin)
        suffix = args.out.suffix.lower()
        if suffix not in SUFFIXES:
            raise UsageError(f"--out {args.out}; allowed: a file that ends with {_SUFFIXES}")
        model = load(args.id, results=args.results, device=args.device)
        made = _made(model, args)
        if suffix == ".csv" and args.what == "encode" and len(model.shape) > 1:
            del made["x"]  # thousands of pixels beside a code
        write = {".png": _picture, ".npz": _arrays, ".csv": _table}[suffix]
        write(model, made, args.out)
    except UsageError as error:
        return complain("bench.model", error)
    except OSError as error:
        return complain("bench.model", f"{args.out} can't be written: {error.strerror}", 1)
    names = ", ".join(f"{name} {each.shape}" for name, each in made.items())
    print(f"{args.out}: {names} of {model!r}")
    return 0


_SUFFIXES = ", ".join(SUFFIXES)


def _made(model: TrainedModel, args: argparse.Namespace) -> dict[str, np.ndarray]:
    """Returns arrays by name: samples, or x with codes, reconstructions and labels."""
    import numpy as np

    n = args.n or (SAMPLES if len(model.shape) == 1 else IMAGES)
    if args.what == "sample":
        return {"samples": model.sample(n, args.seed)}
    if args.input is None:
        x, labels = model.test_data(args.data)
    elif args.data is not None:
        raise UsageError("--input and --data both say where x is; allowed: one of them")
    else:
        x, labels = _read(args.input), None
        n = args.n or len(x)
        if x.ndim == 2 and x.shape[1] == math.prod(model.shape):
            x = x.reshape(-1, *model.shape)  # a row of a table has all pixels
    x = x[:n]
    if x.dtype == np.uint8:
        x = x / np.float32(255)  # in the unit of reconstructions
    found = {"x": x, "z": model.encode(x, args.seed)}
    if args.what == "reconstruct":
        found["x_rec"] = model.decode(found["z"], args.seed)
    return found | ({"label": labels[:n]} if labels is not None else {})


def _read(path: Path) -> np.ndarray:
    """Returns the array of a file. Raises UsageError if there is none."""
    import numpy as np

    try:
        if path.suffix not in (".npy", ".npz", ".csv"):
            raise ValueError(f"ends with {path.suffix or 'nothing'}")
        if path.suffix == ".csv":
            return _numbers(path)
        found = np.load(path)
        if isinstance(found, np.ndarray):
            return found
        names = [name for name in ("x", "samples") if name in found] or found.files
        if names[0] in ("x", "samples") or len(names) == 1:
            return found[names[0]]
        raise ValueError(f"has {', '.join(names)}, and neither x nor samples")
    except Exception as error:  # a damaged file may raise anything
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"--input {path}: {reason}; allowed: a .npy, .npz or .csv of x") from None


def _numbers(path: Path) -> np.ndarray:
    """Returns a table's columns x_0, ... or samples_0, ..., or all columns without a header."""
    import numpy as np

    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv.reader(file) if row]
    if not rows:
        raise ValueError("is empty")
    columns = [*range(len(rows[0]))]
    if not all(map(_is_number, rows[0])):
        heads, *rows = rows
        for name in ("x", "samples"):
            if own := [i for i, head in enumerate(heads) if re.fullmatch(rf"{name}_\d+", head)]:
                columns = own
                break
    return np.array([[float(row[i]) for i in columns] for row in rows], dtype=np.float32)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _arrays(model: TrainedModel, made: dict[str, np.ndarray], path: Path) -> None:
    import numpy as np

    with path.open("wb") as file:
        np.savez_compressed(file, **made)  # type: ignore[arg-type]


def _table(model: TrainedModel, made: dict[str, np.ndarray], path: Path) -> None:
    heads, blocks = [], []
    for name, each in made.items():
        flat = each.reshape(len(each), -1)
        one = each.ndim == 1
        heads += [name] if one else [f"{name}_{i}" for i in range(flat.shape[1])]
        blocks.append(flat.tolist())
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(heads)
        table.writerows(chain(*row) for row in zip(*blocks, strict=True))


def _picture(model: TrainedModel, made: dict[str, np.ndarray], path: Path) -> None:
    """Draws points in the plane, or images side by side: x above its reconstruction."""
    import matplotlib as mpl
    import numpy as np
    from PIL import Image

    from bench.render.figures import DPI, GREY, STYLE, panels
    from bench.studies.images.figures import mosaic

    shown = made.get("x_rec", made.get("samples", made.get("z")))
    assert shown is not None
    if shown.ndim == 2 and shown.shape[1] == 2:
        white = {"savefig.transparent": False, "axes.facecolor": "white"}
        style: dict[Any, Any] = {**STYLE, **white}
        with mpl.rc_context(style):
            figure, (axes,) = panels(1, 1, 4.5, 4.5)
            words = {"x_rec": "reconstructions", "samples": "samples", "z": "codes"}
            what = next(words[name] for name in words if name in made)
            if what != "codes":
                x = made.get("x", model.test_data()[0])
                axes.scatter(*x.T, s=6, color=GREY, linewidths=0, label="data")
            colours = {"label": what}
            if "label" in made:
                # No one colour stands for them in the legend.
                axes.scatter([], [], s=4, color="black", linewidths=0, label=f"{what}, by centre")
                colours = {"c": made["label"], "cmap": "viridis"}
            axes.scatter(*shown.T, s=4, alpha=0.8, linewidths=0, **colours)
            name = "z" if what == "codes" else "x"
            axes.set(aspect="equal", xlabel=f"{name} 1", ylabel=f"{name} 2")
            label = STUDIES[model.spec.study].label(model.spec.method, model.spec.lam)
            axes.set_title(f"{label}, λ = {model.spec.lam:g}, seed {model.spec.seed}", loc="left")
            axes.margins(y=0.15)  # room for the legend
            axes.legend(loc="upper right", fontsize=7, frameon=True)
            figure.savefig(path, dpi=DPI)
        return
    if shown.ndim == 2:
        raise UsageError(
            f"codes have {shown.shape[1]} numbers, which no picture shows; allowed: .npz, .csv"
        )
    across = max(1, round(np.sqrt(len(shown))))
    rows = [shown]
    if "x_rec" in made:
        x = made["x"]
        parts = np.array_split(np.arange(len(shown)), -(-len(shown) // across))
        blank = np.ones((1, *model.shape), np.float32)
        rows = []
        for part in parts:
            pad = np.repeat(blank, across - len(part), 0)
            rows += [x.reshape(-1, *model.shape)[part], pad, shown[part], pad]
    tiles = np.concatenate(rows)
    sheet = mosaic((tiles * 255).round().astype(np.uint8), -(-len(tiles) // across), across)
    Image.fromarray(sheet).resize(
        (sheet.shape[1] * 2, sheet.shape[0] * 2), Image.Resampling.NEAREST
    ).save(path)


if __name__ == "__main__":
    command(main)
