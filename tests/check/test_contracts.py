"""A faulty method is told what it does wrong, in its own terms; a sound method is not."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import plugins
from bench.check import __main__ as command
from bench.check import children
from bench.check.contracts import images, metrics, reductions
from bench.check.contracts.common import Finding
from bench.scores.metrics import IMAGES, TOY
from bench.studies.toy_grid.evaluate import Evaluation
from bench.studies.toy_grid.spec import ToySpec
from bench.studies.toy_grid.train import Trainer
from models import colour, mnist
from models.methods import METHODS
from tests import lives
from tests.test_extending import REGISTRIES

HEAD = """
import numpy as np
import torch
from bench.scores.metrics import IMAGES, TOY, Metric
from models import mnist
from models.batch import generate, judge, prior, encode
from models.methods import METHODS, Method, density_ratio
from models.objectives import OBJECTIVES, Objective, symmetric_kl
"""
Load = Callable[[str], Path]
Main = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Takes away what a plug-in adds."""
    if os.name == "posix":
        monkeypatch.setattr(children, "SPAWN", lives.server())
    tables: tuple[Any, ...] = (*REGISTRIES, mnist.PARTS, colour.PARTS)
    kept = [each.copy() for each in tables]
    yield
    for each, before in zip(tables, kept, strict=True):
        each.clear()
        each.extend(before) if isinstance(each, list) else each.update(before)


@pytest.fixture
def written(tmp_path: Path) -> Load:
    """Writes a plug-in of these lines."""

    def write(text: str) -> Path:
        (tmp_path / "my.py").write_text(f"{HEAD}{text}\n")
        return tmp_path / "my.py"

    return write


@pytest.fixture
def main(capsys: pytest.CaptureFixture[str]) -> Main:
    """Runs the command: its status, standard output, standard error."""

    def run(*arguments: Any) -> tuple[int, str, str]:
        status = command.main([str(each) for each in arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return run


def told(found: list[Finding], note: bool = False) -> list[str]:
    return [each.text for each in found if each.text and each.note == note]


def line_of(path: Path, words: str) -> str:
    """The place of the line with these words, as findings tell it."""
    lines = path.read_text().splitlines()
    (number,) = [i for i, line in enumerate(lines, 1) if words in line]
    return f"({path.name}:{number})"


def objective(body: str, player: str = "model") -> str:
    losses = {"critic": "density_ratio", "model": "symmetric_kl", player: "own"}
    entry = f'Objective({losses["critic"]}, {losses["model"]}, "Own", "Own-r")'
    return f'SEEN = []\ndef own(f_q, f_p):\n    {body}\nOBJECTIVES["own"] = {entry}'


GAP = "f_p.mean(-1) - f_q.mean(-1)"
BROKEN = {
    "return f_p.sum(-1) - f_q.sum(-1)": (
        "the loss doubles if the batch is repeated: average over the batch axis, .mean(-1)"
    ),
    f"return ({GAP}) * f_p.shape[-1] ** 0.5": (
        "if the batch is repeated: average over the batch axis, .mean(-1)"
    ),
    "return (f_p - f_q).mean()": (
        "logits of shape (5, 64) give a loss of shape (), not (5,): average over the last axis"
    ),
    "return f_p - f_q": "give a loss of shape (5, 64), not (5,)",
    "return (f_p / f_p.std()).mean(-1) - f_q.mean(-1)": (
        "the gradient of a training's loss reaches the logits of others in its stack"
    ),
    f"return ({GAP}) / f_p.detach().std()": (
        "the loss of a training changes with other values in the logits of others in its stack"
    ),
    f"return {GAP} + 0 * f_p.detach().sum()": (
        "the loss of a training changes with NaN in the logits of others in its stack"
    ),
    f"return ({GAP}) * (1 + 0.1 * torch.rand(()))": (
        "uses torch's own random numbers: two runs of one seed would differ"
    ),
    f"return ({GAP}) * np.random.uniform(1, 2)": "uses numpy's own random numbers",
    f"SEEN.append(1); return ({GAP}) * len(SEEN)": "gives another number for the same logits",
    f"return -({GAP})": (
        "pushes f down on encoder pairs and up on decoder pairs: the paper's sign is a model works"
    ),
    "return (f_p.square()).exp().mean(-1) - f_q.mean(-1)": (
        "its loss is inf at logits of ±50 in float32: use softplus, logsigmoid or clamp"
    ),
    f"return ({GAP}).float()": "logits in float64 give a loss in float32: keep their dtype",
    f"return ({GAP}).detach()": "its loss has no gradient: compute it from f_q and f_p by torch",
    "return f_p.mean().item()": "returns float: return a tensor, by .mean(-1) of logits",
    f"f_p -= 1; return {GAP}": "changes f_p in place: make a new tensor, as in f_p = f_p + 1",
    "return f_p[..., 0] - f_q.mean(-1)": "the loss depends on the order of the batch",
    f"return ({GAP} - ({GAP}).detach()) - 4 * ({GAP}).detach()": (
        "its own loss does not fall down its gradient"
    ),
    f"return {GAP} + torch.zeros(f_p.shape[:-1])": "mixes a tensor on the CPU with the batch's",
}


@pytest.mark.parametrize("body", BROKEN)
def test_a_faulty_reduction_is_told_what_to_change(body: str, written: Load) -> None:
    plugins.load([written(objective(body))])
    wrong = told(reductions.of_objective("own"))
    assert any(line.startswith("model: ") and BROKEN[body] in line for line in wrong), wrong
    assert not any(line.startswith("critic: ") for line in wrong)


CRITICS = {
    "return density_ratio(f_p, f_q)": (
        "critic: pushes f up on encoder pairs and down on decoder pairs: the paper's sign is label "
        "1 = decoder pair"
    ),
    "return density_ratio(f_q, -f_p)": (
        "critic: pushes f down on decoder pairs: the paper's sign is label 1 = decoder pair"
    ),
    "return 0 * (f_q + f_p).mean(-1)": (
        "critic: neither f_q nor f_p gives a gradient, so the critic learns nothing"
    ),
}


@pytest.mark.parametrize("body", CRITICS)
def test_a_faulty_critic_is_told_the_papers_sign(body: str, written: Load) -> None:
    plugins.load([written(objective(body, "critic"))])
    assert told(reductions.of_objective("own")) == [CRITICS[body]]


NOTES = {
    "return f_p.mean(-1)": (
        "model: f_q does not enter, so the encoder gets no gradient by matching"
    ),
    "return -f_q.mean(-1)": (
        "model: f_p does not enter, so the decoder gets no gradient by matching"
    ),
    "return f_p.exp().mean(-1) - f_q.mean(-1)": "model: its loss is inf at logits of ±10000",
    "return f_p.square().mean(-1) + (f_q - 1).square().mean(-1)": (
        "model: pushes some logits the other way, as a squared error does beyond its target"
    ),
    f"return {GAP} + (f_p.std(-1) - f_p.std(-1).detach())": None,
    f"return {GAP} + 1e-3 * f_p.var(-1)": "if the batch is repeated",
}


@pytest.mark.parametrize("body", NOTES)
def test_what_a_method_may_do_on_purpose_is_a_note(body: str, written: Load) -> None:
    plugins.load([written(objective(body))])
    found = reductions.of_objective("own")
    assert not told(found)
    words = NOTES[body]
    assert words is None or any(words in line for line in told(found, note=True)), found


def test_what_waits_for_a_gpu_is_a_note_with_its_line(written: Load) -> None:
    path = written(objective(f"\n    if f_p.isnan().all(): return f_q.mean(-1)\n    return {GAP}"))
    plugins.load([path])
    found = reductions.of_objective("own")
    (note,) = told(found, note=True)
    assert not told(found) and note.startswith("model: reads a number of the GPU ")
    assert line_of(path, "isnan") in note


def test_an_error_is_told_with_its_player_and_line(written: Load) -> None:
    path = written(objective("\n    scale = 1 / 0\n    return scale * f_q", "critic"))
    plugins.load([path])
    found = reductions.of_objective("own")
    wrong, place = told(found), line_of(path, "scale = 1 / 0")
    assert wrong == [f"critic: raises ZeroDivisionError: division by zero {place}"]


@pytest.mark.parametrize("scale", ["(1 + torch.rand(()))", "(SEEN.append(1) or len(SEEN))"])
def test_what_only_chance_or_a_kept_state_breaks_is_not_told(scale: str, written: Load) -> None:
    plugins.load([written(objective(f"return ({GAP}) * {scale}"))])
    assert len(told(reductions.of_objective("own"))) == 1


def test_an_error_that_comes_late_is_told_once_and_no_contract_it_stops_is_ok(
    written: Load,
) -> None:
    late = "if f_q.shape == (5, 128) or len(f_q) == 1: raise ArithmeticError('late')"
    plugins.load([written(objective(f"\n    {late}\n    return {GAP}"))])
    found = reductions.of_objective("own")
    (wrong,) = told(found)
    assert wrong.startswith("model: raises ArithmeticError: late (my.py:")
    stopped = {"is finite", "averages over the batch", "mixes no members of a stack"}
    assert not stopped & {each.contract for each in found if not each.text}


def test_a_method_that_leaves_a_term_out_is_measured_in_training(written: Load) -> None:
    """The gradient that every method sends to the decoder is 0 by a method without f_p."""
    plugins.load([written(objective("return -f_q.mean(-1)"))])
    trainer = Trainer([ToySpec(study="toy_grid", scale="smoke", method="svae_r", lam=0.0)])
    gradient = Evaluation(trainer).decoder_gradient()
    assert gradient["own"] == [0.0] and gradient["svae_r"][0] > 0


CRITIC = "density_ratio(nets['critic'](batch.x), nets['critic'](generate(nets, batch)))"
MODEL = "nets['critic'](generate(nets, batch)).mean()"


def of_images(critic: str = CRITIC, model: str = MODEL, more: str = "") -> str:
    critic = critic if "\n" in critic else f"\n    return {critic}"
    model = model if "\n" in model else f"\n    return {model}"
    parts = "" if "parts=" in more else "parts={'decoder': 'conv', 'critic': 'f(x)'}, "
    name = "" if "label=" in more else "label='Own', "
    entry = f"Method(critic=own_critic, model=own_model, {parts}{name}{more})"
    return (
        f"KEPT = []\ndef own_critic(nets, batch):{critic}\n"
        f"def own_model(nets, batch, lam):{model}\nMETHODS['own'] = {entry}"
    )


def checked(path: Path, kind: str = "grey") -> list[Finding]:
    plugins.load([path])
    there = kind in images.kinds(METHODS["own"])
    return images.of_method("own") + (images.of_images("own", kind) if there else [])


RANDOM = "torch.randn(len(batch.x), nets.shape.d_z).double()"
FAULTY = {
    of_images(model=f"nets['critic'](nets['decoder']({RANDOM})).mean()"): (
        "model: uses torch's own random numbers: two runs of one seed would differ; draw by "
        "batch.normal(NAME, ...)"
    ),
    of_images(model=f"{MODEL} + batch.normal('z', 3).mean()"): (
        "model: draws 'z' twice, each time with other numbers: give each a name (my.py:"
    ),
    of_images(model=MODEL.replace(".mean()", "")): (
        "model: its loss has shape (8,): return one number, by .mean()"
    ),
    of_images(critic=f"({CRITIC}).detach()"): "critic: its loss has no gradient",
    of_images(critic="generate(nets, batch).mean() + 0 * batch.x.requires_grad_().mean()"): (
        "critic: gets no gradient: its loss reaches none of critic"
    ),
    of_images(
        model="(nets['critic'](batch.x)).mean() + 0 * nets['decoder'](prior(nets, batch)).mean()"
    ): ("model: gets no gradient: its loss at λ = 0 reaches none of decoder"),
    of_images(model=f"{MODEL} / 0.0"): "model: its loss is ",
    of_images(model=f"-({MODEL}) + 2 * ({MODEL}).detach()"): (
        "model: its loss does not fall in 15 updates of its own ("
    ),
    of_images(model=f"\n    KEPT.append(1)\n    return {MODEL} * len(KEPT)"): (
        "model: gives another number for the same batch and noise"
    ),
    of_images(critic=f"\n    batch.x.mul_(0.5)\n    return {CRITIC}"): (
        "critic: changes batch.x in place"
    ),
    of_images(
        model=f"\n    next(nets['critic'].parameters()).data.mul_(0.5)\n    return {MODEL}"
    ): ("model: changes critic."),
    of_images(model="(nets['critic'](generate(nets, batch)) + torch.zeros(8)).mean()"): (
        "model: mixes a tensor on the CPU with the batch's, and so fails on a GPU (my.py:"
    ),
    of_images(model=f"{MODEL} + ({MODEL} - {MODEL}).sqrt()"): (
        "model: the gradient of network decoder is not finite, with the first weights"
    ),
    of_images(model=f"{MODEL} * (1 + lam)"): "model: λ changes the loss: name the method at λ > 0",
    of_images(more="label_cycle='Own-r'"): "model: λ changes nothing, but label_cycle is 'Own-r'",
    of_images(more="parts={'critic': 'f(x)'}"): "its parts are critic: add the role decoder",
    of_images(more="parts={'decoder': 'convv', 'critic': 'f(x)'}"): (
        "there is no network 'convv' for its decoder; allowed: "
    ),
    of_images(more="parts={'decoder': 'residual', 'critic': 'energy'}"): (
        "no images have all of its networks: grey images lack 'residual', colour images lack "
        "'energy'"
    ),
    of_images(more="parts={'decoder': 'conv'}"): (
        "it has a critic's loss, but no role in parts begins with critic"
    ),
    of_images().replace("critic=own_critic", "critic=None"): (
        "critic never learns: give the method a critic's loss"
    ),
    of_images(more="critic_steps=0"): "critic_steps is 0; allowed: a whole number >= 1",
    of_images(more="betas=(0.5, 1.0)"): "betas is (0.5, 1.0); allowed: two numbers from 0 to below",
    of_images(more="clip=-1"): "clip is -1; allowed: a number >= 0",
    of_images(model=MODEL.replace(".mean()", ".sum()")): (
        "model: the loss doubles if the batch is repeated: average over images, by .mean()"
    ),
    of_images(more="label=''"): "its label is empty: tables need a name",
}


@pytest.mark.parametrize("text", FAULTY, ids=FAULTY.values())
def test_a_faulty_method_of_images_is_told_what_to_change(text: str, written: Load) -> None:
    wrong = told(checked(written(text)))
    assert any(line.startswith(FAULTY[text]) for line in wrong), wrong


def test_a_network_without_a_gradient_is_a_note(written: Load) -> None:
    parts = "parts={'decoder': 'conv', 'encoder': 'implicit', 'critic': 'f(x)'}"
    found = checked(written(of_images(more=parts)))
    assert not told(found)
    assert told(found, note=True) == ["model: network encoder gets no gradient"]


def test_noise_that_colour_critics_take_is_missed_with_the_line(written: Load) -> None:
    model = "nets['critic'](generate(nets, batch), prior(nets, batch)).mean()"
    critic = "density_ratio(nets['critic'](batch.x, prior(nets, batch)), " + model[:-7] + ")"
    parts = "parts={'decoder': 'conv', 'critic': 'f(x, z)'}"
    path = written(of_images(critic, model, parts))
    assert not told(checked(path))
    wrong = told(checked(path, "colour"))
    assert [line.split(": ")[0] for line in wrong] == ["critic", "model"]
    assert line_of(path, "return density_ratio") in wrong[0]


def test_a_network_of_its_own_is_fine_and_dropout_in_it_is_not(written: Load) -> None:
    layers = "mnist.Critic(shape, 'flatten fc1')"
    own = f"mnist.PARTS['own'] = lambda shape: {layers}\n"
    text = of_images(more="parts={'decoder': 'conv', 'critic': 'own'}")
    assert not told(checked(written(own + text)))
    dropped = own.replace(layers, f"torch.nn.Sequential({layers}, torch.nn.Dropout(0.5))")
    wrong = told(checked(written(dropped + text)))
    assert wrong[0].startswith("critic: uses torch's own random numbers")


def metric(body: str, more: str = "", column: str = "own") -> str:
    return (
        f'def own(outputs):\n    """Own."""\n    {body}\n'
        f'own_metric = Metric(("{column}",), own, "own"{more})\n'
        "TOY.append(own_metric)\nIMAGES.append(own_metric)"
    )


METRICS = {
    metric("return float('nan')"): "own is nan of made-up samples: return a finite number",
    metric("return np.random.rand()"): "uses numpy's own random numbers",
    metric("outputs.samples[:] = 0; return 1.0"): "changes outputs.samples, which later metrics",
    metric("return 1.0", column="lam"): "fills column lam, which is another's",
    metric("return outputs.sample.max()"): "asks for sample, which points do not have",
    metric("return 'a'"): "raises ValueError: returned str; allowed: 1 number(s) for own",
    metric("return 1 / 0"): "raises ZeroDivisionError: division by zero (my.py:",
    metric("own.seen = getattr(own, 'seen', 0) + 1; return own.seen"): (
        "gives another number for the same outputs"
    ),
}


@pytest.mark.parametrize("text", METRICS, ids=METRICS.values())
def test_a_faulty_metric_is_told_what_to_change(text: str, written: Load) -> None:
    plugins.load([written(text)])
    assert TOY[-1] is IMAGES[-1]
    wrong = told(metrics.of_metric(TOY[-1], False))
    assert any(line.startswith(METRICS[text]) for line in wrong), wrong


@pytest.mark.parametrize("of_images", [False, True])
def test_the_suites_own_metrics_keep_the_contracts(of_images: bool) -> None:
    for each in IMAGES if of_images else TOY:
        assert not told(metrics.of_metric(each, of_images)), each


class TestCommand:
    def test_a_sound_plug_in_is_ok_and_makes_a_step(self, written: Load, main: Main) -> None:
        path = written(objective("return f_p.mean(-1)") + "\n" + metric("return 1.0"))
        status, out, err = main("--plugin", path, "--device", "cpu")
        assert (status, err) == (0, "")
        assert "my.py, method own for toy_grid, mnist, cifar10, celeba" in out
        assert "note: model: f_q does not enter" in out
        assert "my.py, metric own of images" in out
        assert "  toy_grid  1 ok" in out and "  celeba    1 ok" in out
        assert "mnist quick" not in out and "0 broken" in out  # nothing else is looked at

    def test_a_broken_contract_is_named_on_standard_error(self, written: Load, main: Main) -> None:
        path = written(objective("return f_p.sum(-1) - f_q.sum(-1)"))
        status, out, err = main("--plugin", path)
        assert status == 1 and "a step of every method" not in out
        (line,) = err.splitlines()
        assert line.startswith("broken: my.py, method own, its reductions of logits: model: ")
        assert "average over the batch axis" in line

    def test_as_json(self, written: Load, main: Main) -> None:
        path = written(metric("return float('inf')"))
        status, out, _ = main("--plugin", path, "--json")
        found = json.loads(out)
        assert status == 1 and len(found["broken"]) == 2  # of points and of images
        assert found["plugins"][0]["metrics"] == ["own"]
        kept = [each for each in found["contracts"] if not each["failure"]]
        assert {each["contract"] for each in kept} < {*metrics.METRIC}

    @pytest.mark.parametrize(
        "text",
        ["1 / 0", "METHODS['own'] = print", "METHODS['own'] = Method(None, print, ['conv'], 'O')"],
    )
    def test_what_cannot_be_loaded_or_read_has_status_2(
        self, text: str, written: Load, main: Main
    ) -> None:
        status, out, err = main("--plugin", written(text))
        assert status == 2 and err.count("\n") == 1 and "my.py" in err and not out

    def test_a_file_that_is_not_there(self, tmp_path: Path, main: Main) -> None:
        status, _, err = main("--plugin", tmp_path / "none.py")
        assert status == 2 and "none.py" in err
