"""What is measured of images: which loops are rivals, and what a line says where one is missing."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from bench.speed import images, rates
from bench.speed.baselines.images import PlainTrainer


class Fixed:
    """Stands for `Rates`: every rival is twice as fast as the next."""

    def __init__(self, **rivals: Any) -> None:
        self.rivals = list(rivals)

    def ratio(self, one: str, other: str) -> float:
        return 2.0 ** (self.rivals.index(other) - self.rivals.index(one))

    def summary(self, flops: float) -> str:
        return f"{self.ratio('suite', 'plain'):.2f} x"


def lines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What stands in the lines of MNIST."""
    monkeypatch.setattr(images, "Rates", Fixed)
    monkeypatch.setattr(images, "step_flops", lambda *spec: 1.0)
    for name in ("suite", "plain"):
        monkeypatch.setattr(images, name, lambda *spec, **more: None)
    return [here.partition(";")[0] for _, here, _ in images.training("cpu", "mnist")]


def test_a_compiled_loop_is_a_rival(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    trainers: list[PlainTrainer] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(self))
    monkeypatch.setattr(PlainTrainer, "updates", lambda self, *batch: trainers.append(self))
    monkeypatch.setenv("CXX", "python3")  # any program that is there
    assert lines(monkeypatch) == ["4.00 x", "8.00 x", "2.00 x"] * 2
    assert compiled == [net for one in trainers for net in (one.encoder, one.decoder, one.critic)]


@pytest.mark.parametrize("error", [None, RuntimeError("no Python.h")])
def test_a_line_says_why_nothing_is_compiled(
    error: RuntimeError | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def updates(self: PlainTrainer, *batch: Any) -> None:
        assert error is not None
        raise error

    monkeypatch.setattr(nn.Module, "compile", lambda self: None)
    monkeypatch.setattr(PlainTrainer, "updates", updates)
    monkeypatch.setenv("CXX", "python3" if error else "no-such-compiler")
    why = (
        "torch.compile failed here: RuntimeError" if error else "no compiler no-such-compiler here"
    )
    assert lines(monkeypatch) == ["4.00 x", why, "2.00 x"] * 2


def test_swd_takes_longer_than_its_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "TURN", 0.01)
    monkeypatch.setattr(rates, "TURNS", 1)
    ((_, here, _),) = images.sliced_wasserstein()
    assert here.endswith(" x") and 0 < float(here.removesuffix(" x")) < 1
