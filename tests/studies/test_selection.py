"""What a command selects is counted before it is listed."""

from __future__ import annotations

import pytest

from bench import run
from tests.rows import SMOKE


@pytest.mark.parametrize(
    "options",
    [["--seeds", "9" * 30], ["--seeds=40000", "--lam", ",".join(map(str, range(50)))]],
    ids=["seeds", "seeds times lambdas"],
)
def test_more_trainings_than_can_be_listed(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """They would fill the memory."""
    assert run.main([*SMOKE, *options, "--dry-run"]) == 2
    assert "--seeds" in capsys.readouterr().err


def test_as_many_as_a_cluster_may_train(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main([*SMOKE, "--seeds", "1000", "--status", "--json"]) == 0
    assert '"total": 8000' in capsys.readouterr().out


def test_a_fraction_needs_a_grid(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["toy_grid", "--scale", "paper", "--fraction", "1/8", "--lam", "0.1", "--status"]
    assert run.main([*asked, "--json"]) == 0
    assert '"total": 144' in capsys.readouterr().out
    assert run.main(["mnist", "--fraction", "1/8", "--status"]) == 2
    assert "mnist has no grid; allowed: toy_grid" in capsys.readouterr().err
    assert run.main([*asked, "--set", "encoder_width=256"]) == 2
    assert "two depths and two widths of each network" in capsys.readouterr().err


def test_no_option_replaces_the_methods_of_a_study(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main([*SMOKE, "--only", "method=bogus", "--dry-run"]) == 2
    err = capsys.readouterr().err
    assert "svae_r" in err and "own values" not in err
