"""Tells a person what was found, and everybody what is broken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.check.children import Found
from bench.check.steps import TOLERANCE
from bench.cli import duration
from bench.studies.study import SCALES


def broken(found: Found) -> list[str]:
    """Returns a line for everything that is broken of what a study needs."""
    lines = []
    if "products" in found:
        lines.append(("products", found["products"]))
    for each in found.get("steps", ()):
        lines.append((f"{each['study']} {each['method']} in {each['precision']}", each))
    for each in found.get("stacks", ()):
        lines.append((f"toy_grid's stack at scale {each['scale']}, {_kind(each)}", each))
    lines += [(f"scores of {each['study']}", each) for each in found.get("scores", ())]
    if "results" in found:
        lines.append((f"results folder {found['results']['folder']}", found["results"]))
    lines += [(f"data set {each['name']}", each) for each in found.get("data", ())]
    lines += [(f"classifier {each['name']}", each) for each in found.get("weights", ())]
    for each in found.get("times", ()):
        lines.append((f"estimate of {each['study']} at scale {each['scale']}", each))
    for each in found.get("contracts", ()):
        lines.append((f"{each['plugin']}, {each['about']}", each))
    return [f"{name}: {each['failure']}" for name, each in lines if each["failure"]]


def _kind(stack: Found) -> str:
    return "λ > 0" if stack["cycle"] else "λ = 0"


def text(found: Found) -> Iterator[str]:
    """Yields the lines that tell a part of what was found."""
    if "plugins" in found:
        yield from _plugin_lines(found["plugins"])
    if "contracts" in found:
        yield from _contract_lines(found["contracts"])
    if "versions" in found:
        yield from _machine_lines(found)
    if "products" in found:
        yield from _product_lines(found["products"])
    if "steps" in found:
        yield from _step_lines(found["steps"])
    if found.get("stacks"):
        yield from _stack_lines(found["stacks"])
    if found.get("scores"):
        yield ""
        yield "scores on CPU and GPU"
        each_one = [(each, f"equal within {each['tolerance']:g}") for each in found["scores"]]
        yield from _table([[each["study"], _or_why(each, good)] for each, good in each_one])
    if "free" in found:
        yield ""
        free = [f"{name} {_gib(size)}" for name, size in found["free"].items() if size is not None]
        yield f"free: {', '.join(free)}"
        yield f"results in {found['results']['folder']}: {_or_why(found['results'], 'ok')}"
    if "data" in found:
        rows = [[e["name"], e["state"], e["where"] or ""] for e in found["data"]]
        rows += [[f"classifier {e['name']}", e["state"], ""] for e in found["weights"]]
        yield from ("", "data and weights", *_table(rows))
    if "times" in found:
        yield from _time_lines(found["times"])


def _plugin_lines(found: Sequence[Found]) -> Iterator[str]:
    for each in found:
        kinds = ("methods", "metrics", "data", "studies")
        added = "; ".join(f"{kind} {', '.join(each[kind])}" for kind in kinds if each[kind])
        yield f"{each['name']} ({each['digest']}) adds {added or 'nothing'}"
        if each["data"] or each["studies"]:
            yield "  data sets and studies have no contracts: a run at scale smoke tries them"


def _contract_lines(found: Sequence[Found]) -> Iterator[str]:
    for about in dict.fromkeys((each["plugin"], each["about"]) for each in found):
        yield from ("", ", ".join(about))
        rows, last = list[list[str]](), ""
        for each in found:
            if (each["plugin"], each["about"]) == about:
                note = f"note: {each['note']}" if each["note"] else "ok"
                start, last = "" if each["contract"] == last else each["contract"], each["contract"]
                rows.append([start, _or_why(each, note)])
        yield from _table(rows)


def _machine_lines(found: Found) -> Iterator[str]:
    known, here = found["versions"], found["machine"]
    commit = (known["commit"] or "unknown")[:12] + (", changed" if known["dirty"] else "")
    named = ("python", "torch", "torchvision", "numpy", "cuda", "cudnn", "driver")
    yield f"suite {known['suite'] or 'not installed'} (commit {commit}) on {found['device']}"
    yield ", ".join(f"{name} {known[name]}" for name in named if known[name] is not None)
    yield f"{here['cpu']}, {here['cores']} cores, {_gib(here['memory'])}"
    if gpu := here["gpu"]:
        yield f"{gpu['name']}, {_gib(gpu['memory'])}, capability {gpu['capability']}"


def _product_lines(found: Found) -> Iterator[str]:
    rows = [
        [f"{e['device']}, {e['by']}", e["precision"], f"{e['flops'] / 1e9:,.0f} GFLOP/s"]
        for e in found["rates"]
    ]
    if found["bandwidth"]:
        rows.append(["cuda, memory", "", f"{found['bandwidth'] / 1e9:,.0f} GB/s"])
        rows.append(["cuda, free memory", "", _gib(found["free"])])
    if found["failure"]:
        rows.append([found["failure"]])
    yield from ("", "products (a CPU's on one thread)", *_table(rows))


def _step_lines(found: Sequence[Found]) -> Iterator[str]:
    names = [name for name in TOLERANCE if any(each["precision"] == name for each in found)]
    rows = [["study", *names]]
    for study in dict.fromkeys(each["study"] for each in found):
        cells = []
        for name in names:
            mine = [e for e in found if (e["study"], e["precision"]) == (study, name)]
            bad = ", ".join(each["method"] for each in mine if each["failure"])
            good = sum(not each["failure"] for each in mine)
            cells.append(f"{good} ok{f', not {bad}' if bad else ''}" if mine else "-")
        rows.append([study, *cells])
    graphs = sum(bool(each.get("graph")) for each in found)
    without: dict[str, list[str]] = {}
    for each in found:
        if why := each.get("no_graph"):
            without.setdefault(why, []).append(
                f"{each['study']} {each['method']} in {each['precision']}"
            )
    limits = ", ".join(f"{TOLERANCE[name]:g} in {name}" for name in names)
    other = "without a graph" if graphs else "in float64"
    yield ""
    yield f"a step of every method, beside the same step {other} (equal within {limits})"
    yield from _table(rows)
    if graphs:
        yield f"  graph used by {graphs} of {len(found)}"
    for why, which in without.items():
        all_of = len(which) == len(found)
        yield f"  no graph: {why}" if all_of else f"  no graph: {', '.join(which)}: {why}"


def _stack_lines(found: Sequence[Found]) -> Iterator[str]:
    rows = [["scale", "kind", "members", "widths", "a batch", "memory", "graph"]]
    for each in sorted(found, key=lambda each: SCALES.index(each["scale"])):
        row = [each["scale"], _kind(each)]
        if each["failure"]:
            rows.append([*row, each["failure"]])
            continue
        widths = " ".join(map(str, each["widths"]))
        took, graph = f"{1000 * each['seconds_a_batch']:.1f} ms", "yes" if each["graph"] else "no"
        rows.append([*row, str(each["members"]), widths, took, _gib(each["memory"]), graph])
    yield from ("", "dearest stacks of toy_grid, a few batches", *_table(rows))


def _time_lines(found: Sequence[Found]) -> Iterator[str]:
    rows = [["study", *SCALES]]
    for study in dict.fromkeys(each["study"] for each in found):
        mine = [each for each in found if each["study"] == study]
        rows.append([study, *(_or_why(each, _time(each)) for each in mine)])
    timed = dict.fromkeys(each["scale"] for each in found if each["by"] == "timing")
    how = f"steps timed at {', '.join(timed)}, else by products" if timed else "by products"
    yield from ("", f"a whole study, on so many workers of an idle machine ({how})", *_table(rows))


def _time(each: Found) -> str:
    return f"{duration(60 * (each['minutes'] or 0))} on {each['workers']}"


def _table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yields the rows as aligned lines."""
    widths: dict[int, int] = {}
    for row in rows:
        for i, cell in enumerate(row):
            widths[i] = max(widths.get(i, 0), len(cell))
    for row in rows:
        cells = "  ".join(cell.ljust(widths[i]) for i, cell in enumerate(row))
        yield f"  {cells}".rstrip()


def _gib(size: int | None) -> str:
    return "?" if size is None else f"{size / 2**30:.1f} GiB"


def _or_why(each: Found, fine: str) -> str:
    return each["failure"] or fine
