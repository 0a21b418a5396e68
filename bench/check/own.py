"""Checks what files of a user's own add to the suite, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bench import plugins
from bench.check.children import Found, results_of
from bench.check.contracts import images, metrics, reductions
from bench.check.contracts.common import Finding
from bench.check.steps import step, steps
from bench.plugins import Plugin
from bench.scores.metrics import IMAGES, TOY
from models.methods import METHODS
from models.objectives import OBJECTIVES


def look_at(paths: Sequence[Path], device: str, children: int) -> Iterator[Found]:
    """Yields parts of what is found of these files, each as soon as it is known.

    Methods that keep their contracts also make a training step in every study that trains them.
    Raises UsageError for a file that can't be loaded.
    """
    loaded = plugins.load(paths)
    yield {"plugins": [_added(each) for each in loaded]}
    found, sound = list[Found](), list[str]()
    for plugin in loaded:
        for name in plugin.methods:
            of_it = [*_of_method(plugin, name)]
            found += of_it
            sound += [] if any(each["failure"] for each in of_it) else [name]
        for name in plugin.metrics:
            found += _of_metric(plugin, name)
    yield {"contracts": found}
    calls = [
        [replace(task, call=partial(_step, plugins.carried())) for task in group]
        for group in steps(device)
        if group[0].about["method"] in sound
    ]
    if calls:
        yield {"steps": results_of(calls, min(children, len(calls)))}


def _added(plugin: Plugin) -> Found:
    added = {"methods": plugin.methods, "metrics": plugin.metrics}
    added |= {"data": plugin.data, "studies": plugin.studies}
    lists = {kind: [*names] for kind, names in added.items()}
    return {"name": plugin.name, "digest": plugin.digest, **lists}


def _of_method(plugin: Plugin, name: str) -> Iterator[Found]:
    studies = ", ".join(images.trainable(name))
    about = f"method {name} for {studies}" if studies else f"method {name}"
    yield from _told(plugin, about, partial(images.of_method, name))
    if name in OBJECTIVES:
        about = f"method {name}, its reductions of logits"
        yield from _told(plugin, about, partial(reductions.of_objective, name))
    for kind in images.kinds(METHODS[name]):
        about = f"method {name}, on {kind} images"
        yield from _told(plugin, about, partial(images.of_images, name, kind))


def _of_metric(plugin: Plugin, column: str) -> Iterator[Found]:
    for table, of_images in ((TOY, False), (IMAGES, True)):
        for metric in table:
            if metric.columns[0] == column:
                about = f"metric {column} of {'images' if of_images else 'points'}"
                yield from _told(plugin, about, partial(metrics.of_metric, metric, of_images))


def _told(plugin: Plugin, about: str, find: Callable[[], list[Finding]]) -> Iterator[Found]:
    for name, text, note in find():
        about_it = {"plugin": plugin.name, "about": about, "contract": name}
        failure, said = (None, text) if note else (text or None, None)
        yield {**about_it, "failure": failure, "note": said}


def _step(texts: tuple[plugins.Text, ...], *arguments: Any) -> Found:
    """Makes a step in a child process, which has no plug-in yet."""
    plugins.install(texts)
    return step(*arguments)
