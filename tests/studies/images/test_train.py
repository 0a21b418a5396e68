"""Image studies: trainings that can be stopped anywhere, their scores, their pages."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bench import run
from bench.check.contracts.common import Elsewhere
from bench.data import load as data
from bench.engine.job import run_job
from bench.scores import ais, classifiers
from bench.scores.metrics import IMAGES
from bench.store import checkpoint, source
from bench.studies import STUDIES, cost, cuda
from bench.studies.images import evaluate, job
from bench.studies.images import train as trains
from bench.studies.images.domain import domain as domain_of
from bench.studies.images.spec import ImageSpec
from bench.studies.images.train import Draws, Model, Trainer, together
from bench.studies.study import Job
from models.precision import allow_tf32
from tests import lives
from tests.conftest import POSIX
from tests.lives import Life

DIGITS = data.load("stand-in digits")
TINY = {"width": 1 / 16, "batch": 8, "epochs": 1, "images": 160, "bits": "dynamic"}
AIS = {"samples": 40, "temperatures": 6, "chains": 2, "leapfrog": 2, "ais_images": 10}


def spec(method: str = "svae_r", lam: float = 0.1, **fields: Any) -> ImageSpec:
    return ImageSpec(
        study="mnist",
        scale="smoke",
        method=method,
        lam=lam,
        **{"data": "stand-in digits", **TINY, **AIS, **fields},
    )


def trainer(one: ImageSpec, n: int = 48) -> Trainer:
    return Trainer(one, data.load(one.data).train[:n])


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """All bits but how the training was made; what is not a number equals itself."""
    how = {"seconds", "cpu_seconds", "graph"}
    pairs = ((a[k].numpy(), b[k].numpy()) for k in a.keys() - how)
    return a.keys() == b.keys() and all(np.array_equal(*pair, equal_nan=True) for pair in pairs)


def trained(one: Job) -> Trainer:
    """The trainer of a job of one training, at its end."""
    (found,) = job._trained(one, {"stand-in digits": DIGITS}, lambda share: None)
    return found


@pytest.mark.parametrize(
    ("method", "images", "precision"),
    [
        *((method, "stand-in digits", "float32") for method in domain_of("mnist").methods()),
        *((m, "stand-in photos", "float32") for m in ("svae_r", "as_vae", "wgan_gp_residual")),
        ("svae_r", "stand-in photos", "bf16"),
    ],
)
def test_a_resumed_training_equals_an_uninterrupted_one(
    method: str, images: str, precision: str, tmp_path: Path
) -> None:
    """Bitwise: parameters, Adam, data order across an epoch's end, noise, losses."""
    one = spec(method, lam=0.0, epochs=2, data=images, precision=precision)
    whole = trainer(one, n=24)
    whole.train()
    stopped = trainer(one, n=24)
    with pytest.raises(_Stop):
        stopped.train(lambda: None if stopped.step < 4 else _save_and_stop(stopped, tmp_path / "c"))
    resumed = trainer(one, n=24)
    state = checkpoint.load(tmp_path / "c")
    assert state is not None and int(state["step"]) == 4
    resumed.load(state)
    resumed.train()
    assert same(resumed.state(), whole.state())
    assert whole.step == 6 and whole.finite()


class _Stop(Exception):
    """The training is killed here."""


def _save_and_stop(stopped: Trainer, path: Path) -> None:
    checkpoint.save(path, stopped.state())
    raise _Stop


def test_methods_see_the_same_batches_noise_and_first_weights() -> None:
    one, other = trainer(spec("svae_r")), trainer(spec("alice", lam=1.0))
    for step in (0, 5, 6, 11):
        assert torch.equal(one.batch(step), other.batch(step))
    for role in ("encoder", "decoder", "critic"):
        for a, b in zip(one.nets[role].parameters(), other.nets[role].parameters(), strict=True):
            assert torch.equal(a, b)
    x = one.batch(0)
    a, b = (Draws(x, each.spec.stream, "3 model").normal("z", 5) for each in (one, other))
    assert torch.equal(a, b)
    assert not torch.equal(a, Draws(x, one.spec.stream, "4 model").normal("z", 5))
    assert not torch.equal(a, Draws(x, one.spec.stream, "3 model").normal("eps", 5))
    seeds = trainer(spec(seed=1))
    assert not torch.equal(seeds.batch(0), one.batch(0))
    scored = spec(temperatures=9, chains=3, samples=50)
    assert scored.stream == one.spec.stream and scored.id != one.spec.id


def test_in_bf16_products_are_rounded_and_nothing_else() -> None:
    """The same weights, noise and batches; what reaches norms, losses and Adam is float32."""
    whole, rounded = (trainer(spec(precision=name)) for name in ("float32", "bf16"))
    x = whole.batch(0)
    assert torch.equal(x, rounded.batch(0))
    z = torch.randn(len(x), 64, generator=torch.Generator().manual_seed(0))
    decoder: Any = rounded.nets["decoder"]
    with rounded._precision():
        products = decoder.layers[0](z)
        bits = products.view(torch.int32) & 0xFFFF
        assert products.dtype == torch.float32 and not bits.any()  # all that bfloat16 lacks
        normed = decoder.layers[:3](z)
        assert normed.dtype == torch.float32 and (normed.view(torch.int32) & 0xFFFF).any()
        image = decoder(z)
    exact = whole.nets["decoder"](z)
    assert 0 < (image - exact).abs().max() < 0.05
    assert torch.equal(decoder(z), exact)  # as it is scored
    for one in (whole, rounded):
        one.train()
        assert one.finite()
        moments = [m["exp_avg"] for m in one.model_adam.state_dict()["state"].values()]
        assert {t.dtype for t in (*one.nets.parameters(), *moments)} == {torch.float32}
    (_, critic, model), (_, critic_bf16, model_bf16) = (one.losses[0] for one in (whole, rounded))
    assert (critic, model) != (critic_bf16, model_bf16)
    assert critic_bf16 == pytest.approx(critic, abs=0.03)
    assert model_bf16 == pytest.approx(model, abs=0.03)


def test_an_epoch_shows_every_image_once() -> None:
    one = trainer(spec())
    seen = torch.cat([one.batch(step) for step in range(6)])
    everything = torch.from_numpy(np.array(DIGITS.train[:48])).float() / 255
    key = torch.randn(28 * 28, generator=torch.Generator().manual_seed(0))
    sums = [(each.flatten(1) @ key).sort().values for each in (seen, everything)]
    torch.testing.assert_close(*sums)


def test_critic_and_model_learn_in_their_own_turns() -> None:
    one = trainer(spec())
    before = {name: t.clone() for name, t in one.nets.state_dict().items()}
    assert one.method.critic is not None
    draws = Draws(one.batch(0), one.spec.stream, "0 critic 0")
    for parameter in one.models:
        parameter.requires_grad_(False)
    one.method.critic(one.nets, draws).backward()
    assert one.critic_adam is not None
    one.critic_adam.step()
    for name, tensor in one.nets.state_dict().items():
        if name.endswith(("weight", "bias")) and not name.startswith("critic"):
            assert torch.equal(tensor, before[name]), name


def test_clipping_holds_after_every_step() -> None:
    one = trainer(spec("wgan", lam=0.0))
    one.advance()
    assert one.critic_steps == 5
    assert max(float(p.detach().abs().max()) for p in one.critics) <= 0.01 + 1e-9


class TestReplay:
    @pytest.mark.parametrize("study", [name for name in STUDIES if name in data.DATASETS])
    def test_updates_are_on_their_device_alone(
        self, study: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Draws, "_fill", lambda self, name: None)
        monkeypatch.setattr(Trainer, "_adam", lambda self, p: torch.optim.SGD(p, foreach=False))
        monkeypatch.setattr(Trainer, "_precision", lambda self: contextlib.nullcontext())
        for method in domain_of(study).methods():
            (one, *_) = STUDIES[study].specs("smoke", methods=[method], lams=[0.1])
            meta = Trainer(one, data.load(one.data).train, "meta")
            draws = [meta.draws(meta.batch(0), name) for name in meta.update_names(0)]
            with Elsewhere() as mode, monkeypatch.context() as patch:
                for maker in ("tensor", "as_tensor"):  # to "meta" they make no copy, to a GPU one
                    patch.setattr(torch, maker, lambda *_, **__: mode.found.update(copy=""))
                meta.updates(draws)
            assert not mode.found, (method, mode.found)

    @pytest.mark.parametrize("one", [spec(), spec("wgan_gp", lam=0.0), spec("vae", lam=0.0)])
    def test_replayed_steps_equal_eager_ones(
        self, one: ImageSpec, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A graph that computes anew from the same memory, as a GPU would."""
        replays: list[int] = []

        def graph(work: Callable, device: torch.device) -> Callable:
            return lambda: replays.append(1) or work()

        monkeypatch.setattr(cuda, "_graph", graph)
        eager, replayed = trainer(one), trainer(one)
        replayed.record = True
        eager.train()
        replayed.train()
        assert same(eager.state(), replayed.state())
        assert eager.losses == replayed.losses
        assert len(replays) == replayed.steps - 1
        assert replayed.graph and not eager.graph


class Stream:
    """Stands for a stream of a GPU, which has always done all that it was asked for."""

    now: Stream | None = None
    waits = 0

    def synchronize(self) -> None:
        self.waits += 1


@contextlib.contextmanager
def on(stream: Stream | None) -> Iterator[None]:
    before, Stream.now = Stream.now, stream
    yield
    Stream.now = before


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().numpy().tobytes()


MIXED = (
    spec("svae_r", epochs=2, images=24),
    spec("wgan_gp", lam=0.0, epochs=1, images=48),
    spec("svae_r", lr=1e30, epochs=1, images=24),  # diverges
    spec("nf_vae", lam=0.0, epochs=3, images=24),
)


class TestTogether:
    def test_they_equal_trainings_one_at_a_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each with recorded steps and all of its work on its own stream, with stand-ins."""
        alone = [trainer(one) for one in MIXED]
        for each in alone:
            each.train()

        def graph(work: Callable, device: torch.device) -> Callable:
            return work

        updates, places = Trainer.updates, []

        class Loss(float):
            """A number that is read, as a tensor is, on the stream that made it."""

            stream: Any = None

            def __float__(self) -> float:
                places.append((self.stream, Stream.now))
                return super().__float__()

        def noted(self: Trainer, draws: Any) -> Any:
            places.append((self.stream, Stream.now))
            losses = [Loss(loss) for loss in updates(self, draws)]
            for loss in losses:
                loss.stream = self.stream
            return losses

        monkeypatch.setattr(cuda, "_graph", graph)
        monkeypatch.setattr(torch.cuda, "stream", on)
        monkeypatch.setattr(trains, "_new_stream", lambda device: Stream())
        monkeypatch.setattr(Trainer, "updates", noted)
        images = torch.from_numpy(np.array(DIGITS.train))
        beside = [Trainer(one, images) for one in MIXED]
        for each in beside:
            each.record = True
        ended = [len(some) for some in together(beside)]
        assert ended == [0, 0, 1, 0, 0, 2, 0, 0, 1]
        for one, other in zip(alone, beside, strict=True):
            assert same(one.state(), other.state())  # losses too
            assert other.graph and vars(other.stream)["waits"]
        assert [each.finite() for each in beside] == [True, True, False, True]
        assert all(own is now for own, now in places) and len({own for own, _ in places}) == 4
        assert beside[0].images.data_ptr() == beside[1].images.data_ptr()  # one copy for all

    def test_a_job_of_several_gives_the_rows_of_single_jobs(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """And goes on from what checkpoints there are: of none, of half and of a whole training."""
        monkeypatch.setattr(evaluate, "STATISTICS", 2)
        timing = {"train_seconds", "cpu_seconds", "evaluation_seconds", "weights"}

        def made(folder: Path, *specs: ImageSpec) -> list[tuple[str, str, bytes]]:
            rows, samples = job.train(_job(*specs, folder=folder), lambda share: None, IMAGES)
            texts = [repr({k: row[k] for k in sorted(row.keys() - timing)}) for row in rows]
            weights = [b"".join(map(_bytes, row.get("weights", {}).values())) for row in rows]
            return list(zip(texts, map(repr, samples), weights, strict=True))

        expected = [each for one in MIXED for each in made(tmp_path / one.id, one)]
        (_, half, *_) = MIXED
        with pytest.raises(_Stop):
            path = job._checkpoint(_job(half, folder=tmp_path), half, "train")
            stopped = Trainer(half, DIGITS.train)
            stopped.train(lambda: None if stopped.step < 4 else _save_and_stop(stopped, path))
        whole = MIXED[0]
        trained(_job(whole, folder=tmp_path))
        advanced: list[str] = []
        advance = Trainer.advance

        def noted(self: Trainer) -> Any:
            advanced.append(self.spec.id)
            return advance(self)

        monkeypatch.setattr(Trainer, "advance", noted)
        assert made(tmp_path, *MIXED) == expected
        assert [advanced.count(one.id) for one in MIXED] == [0, 2, 3, 9]
        assert ["diverged" in text for text, *_ in expected] == [False, False, True, False]
        job.clear(_job(*MIXED, folder=tmp_path))
        assert not list((tmp_path / "mnist").rglob("*.safetensors"))

    def test_kept_weights_of_several_are_scored_like_single_ones(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As `bench.results score` does on a GPU, where stacks hold several."""
        monkeypatch.setattr(evaluate, "STATISTICS", 2)
        specs = [spec("gan", lam=0.0, ais_images=0), spec("svae_r", ais_images=0, samples=30)]
        both = _job(*specs, folder=tmp_path)
        kept = [(row, row["weights"]) for row in job.train(both, lambda share: None, IMAGES)[0]]
        found = job.score(both, kept, IMAGES)
        for one, pair, columns in zip(specs, kept, found, strict=True):
            assert [columns] == job.score(_job(one, folder=tmp_path), [pair], IMAGES)
            assert columns.items() <= pair[0].items() and columns["frechet"] > 0

    def test_they_share_the_clock_and_what_waits_at_a_checkpoint_counts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A step takes 1 s, the device 100 s after each turn, and a checkpoint 10,000 s."""
        now = [0.0]
        monkeypatch.setattr(cost.time, "perf_counter", lambda: now[0])

        def passes(seconds: float) -> None:
            now[0] += seconds

        class Slow(Stream):
            left = 0.0

            def synchronize(self) -> None:
                passes(self.left)
                self.left = 0.0

        def step(self: Trainer) -> Any:
            passes(1.0)
            self.stream.left = 100.0  # type: ignore[union-attr]
            self.step += 1
            return torch.zeros(()), torch.zeros(())

        def saved(path: Path, state: dict[str, Tensor]) -> None:
            passes(10_000.0)
            seconds.append(float(state["seconds"]))

        seconds: list[float] = []
        monkeypatch.setattr(trains, "_new_stream", lambda device: Slow())
        monkeypatch.setattr(torch.cuda, "stream", on)
        monkeypatch.setattr(Trainer, "advance", step)
        monkeypatch.setattr(job, "_save", saved)
        monkeypatch.setattr(job, "EVERY", 0.0)
        specs = [spec(images=24), spec("gan", lam=0.0, images=16)]  # 3 and 2 steps
        found = job._trained(
            _job(*specs, folder=tmp_path), {"stand-in digits": DIGITS}, lambda share: None
        )
        first = (2 * 1.0 + 2 * 100.0) / 2  # a turn of both, then a checkpoint
        last = (2 * 1.0 + 100.0) / 2  # a turn of both, in which the second ends
        assert [each.seconds for each in found] == [first + last + 100.0 + 101.0, first + last]
        both, one_left = [first, first], [first + last + 100.0, first + last]
        assert seconds == [*both, *one_left, found[0].seconds]

    def test_a_state_is_loaded_where_the_next_step_runs(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A GPU may still be laying out what it was sent on another stream."""
        places: list[tuple[str, Stream | None]] = []

        class State(dict[str, Tensor]):
            def __getitem__(self, name: str) -> Tensor:
                places.append((name, Stream.now))
                return super().__getitem__(name)

        monkeypatch.setattr(torch.cuda, "stream", on)
        monkeypatch.setattr(trains, "_new_stream", lambda device: Stream())
        one, other = trainer(spec()), trainer(spec())
        one.train()
        load = other.nets.load_state_dict
        monkeypatch.setattr(
            other.nets, "load_state_dict", lambda t: places.append(("nets.", Stream.now)) or load(t)
        )
        other.load(State(one.state()))
        tensors = [now for name, now in places if name.startswith(("nets.", "critic_", "model_"))]
        assert len(tensors) > 3 and all(now is other.stream for now in tensors)
        assert same(one.state(), other.state())

    def test_an_error_ends_all_of_them_after_the_device(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Memory that an error frees must not be written to any more."""

        def refuses(work: Callable, device: torch.device) -> Callable:
            raise RuntimeError("operation not permitted when stream is capturing")

        monkeypatch.setattr(cuda, "_graph", refuses)
        monkeypatch.setattr(cuda, "_failed", False)
        monkeypatch.setattr(torch.cuda, "stream", on)
        monkeypatch.setattr(trains, "_new_stream", lambda device: Stream())
        one, other = trainer(MIXED[0]), trainer(MIXED[1])
        other.record = True
        with pytest.raises(cuda.Unrecorded, match="not permitted") as caught:
            list(together([one, other]))
        assert caught.value.methods == ("wgan_gp",)
        assert all(vars(each.stream)["waits"] for each in (one, other))

    def test_they_train_in_their_turn_and_are_scored_beside_another_job(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        events: list[str] = []

        @contextlib.contextmanager
        def turn() -> Iterator[None]:
            events.append("begin")
            yield
            events.append("end")

        def noted(owner: Any, name: str) -> None:
            call = getattr(owner, name)
            monkeypatch.setattr(owner, name, lambda *given: events.append(name) or call(*given))

        monkeypatch.setattr(job, "turn", turn)
        monkeypatch.setattr(evaluate, "STATISTICS", 2)
        noted(Trainer, "advance")
        noted(evaluate, "scores")
        specs = [spec("gan", lam=0.0, images=8, ais_images=0, seed=seed) for seed in range(2)]
        job.train(_job(*specs, folder=tmp_path), lambda share: None, IMAGES)
        assert events == ["begin", "advance", "advance", "end", "scores", "scores"]

    def test_a_gpus_stacks_hold_each_training_once(self) -> None:
        """Of one data set and precision, of about equal length, and single ones on a CPU."""
        study = STUDIES["mnist"]
        specs = study.specs("paper")
        mixed = [*specs, *(replace(one, precision="tf32") for one in specs[:4])]
        cut = study.stacks(mixed, "cuda")
        assert sorted(one.id for stack in cut for one in stack) == sorted(one.id for one in mixed)
        assert {len(stack) for stack in cut} <= {*range(4, job.TOGETHER + 1)}
        assert all(len({(one.data, one.precision) for one in stack}) == 1 for stack in cut)
        lengths = [[job.training_seconds(one) for one in stack] for stack in cut[:-1]]
        assert all(max(a) <= min(b) for a, b in pairwise(lengths))
        assert study.stacks(mixed, "cpu") == [[one] for one in mixed]


class TestCheckpoint:
    def test_one_of_other_networks_is_dropped_and_the_training_starts_anew(
        self, tmp_path: Path
    ) -> None:
        one, other = spec(), trainer(spec("gan", lam=0.0))
        other.train()
        checkpoint.save(job._checkpoint(_job(one, folder=tmp_path), one, "train"), other.state())
        again, anew = (
            trained(_job(one, folder=folder)) for folder in (tmp_path, tmp_path / "anew")
        )
        assert same(again.state(), anew.state()) and again.losses == anew.losses

    def test_one_of_other_source_is_not_gone_on_from(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Half a training by one source and half by another would pass for today's."""
        one = spec()
        whole = trained(_job(one, folder=tmp_path))
        again = trained(_job(one, folder=tmp_path))
        assert again.seconds == whole.seconds  # the checkpoint at the end is gone on from
        assert again.cpu_seconds == whole.cpu_seconds > 0
        monkeypatch.setattr(source, "digest", lambda *_, **__: "0" * 12)
        anew = trained(_job(one, folder=tmp_path))
        assert anew.seconds != whole.seconds
        job.clear(_job(one, folder=tmp_path))
        assert not list(tmp_path.rglob("*.safetensors"))

    def test_any_damage_is_seen_and_the_file_goes(self, tmp_path: Path) -> None:
        path = tmp_path / "c.safetensors"
        tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3)}
        checkpoint.save(path, tensors)
        whole = path.read_bytes()
        found = checkpoint.load(path)
        assert found is not None and same(found, tensors)
        for at in range(8, len(whole), 7):
            flipped = bytearray(whole)
            flipped[at] ^= 4
            path.write_bytes(bytes(flipped))
            back = checkpoint.load(path)
            assert back is None or same(back, tensors), at  # a flip in a name's padding is harmless
        path.write_bytes(whole[:-1])
        assert checkpoint.load(path) is None
        assert not path.exists()
        assert checkpoint.load(path) is None

    def test_nothing_is_unpickled(self, tmp_path: Path) -> None:
        import pickle

        class Evil:
            def __reduce__(self) -> tuple[Any, ...]:
                return (Path.touch, (tmp_path / "ran",))

        (tmp_path / "c").write_bytes(pickle.dumps(Evil()))
        assert checkpoint.load(tmp_path / "c") is None
        assert not (tmp_path / "ran").exists()


class Drawn(TorchDispatchMode):
    """Notes the devices that draw random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.devices: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if "generator" in str(func):
            self.devices.append(out.device.type)
        return out


def to_tf32(x: Tensor) -> Tensor:
    """Rounds float32 to the 10 bits of TF32, towards 0."""
    return (x.contiguous().view(torch.int32) & ~0x1FFF).view(torch.float32)


class TestScores:
    def test_frozen_norm_has_the_statistics_of_training_batches(self) -> None:
        one = trainer(spec())
        evaluate.freeze(one)
        nets: Any = one.nets
        first, norm = nets["encoder"].layers[:2]
        assert int(norm.num_batches_tracked) == evaluate.STATISTICS
        means = []
        for i in range(evaluate.STATISTICS):
            x = one.batch(i)
            eps = Draws(x, one.spec.stream, f"statistics {i}").normal("eps", 1, 28, 28)
            means.append(first(torch.cat([x, eps], 1)).mean((0, 2, 3)))
        torch.testing.assert_close(norm.running_mean, torch.stack(means).mean(0).detach())
        assert not one.nets.training

    @pytest.mark.parametrize("method", ["svae_r", "gan"])
    def test_folding_keeps_the_function(self, method: str) -> None:
        one = Trainer(spec(method, lam=0.0), DIGITS.train[:48], dtype=torch.float64)
        one.train()
        evaluate.freeze(one)
        z = torch.randn(5, 64, dtype=torch.float64)
        nets: Any = one.nets
        folded = evaluate.folded(nets["decoder"])
        torch.testing.assert_close(folded.logits(z), nets["decoder"].logits(z))
        assert not any("Norm" in type(module).__name__ for module in folded.modules())

    def test_mse_is_on_minus_one_to_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        one = trainer(spec())
        x = torch.from_numpy(np.array(DIGITS.test)).float() / 255
        monkeypatch.setattr(evaluate, "reconstruct", lambda model, x, *_: x.float() / 255 + 0.25)
        evaluate.freeze(one)
        scores, pictures = evaluate.scores(one, DIGITS, IMAGES)
        assert scores["mse_x"] == pytest.approx(0.5**2, rel=1e-5)
        assert len(pictures["samples"]) == 40
        assert pictures["x"].shape == (64, 1, 28, 28)
        assert x.max() <= 1

    def test_images_of_ais_are_the_same_for_all_and_of_every_class(self) -> None:
        one, other = spec(seed=3), spec("alice", lam=1.0)
        bits = evaluate.test_bits(one, DIGITS, None)
        assert torch.equal(bits, evaluate.test_bits(other, DIGITS, None))
        assert bits.shape == (10, 784) and set(bits.unique().tolist()) == {0.0, 1.0}
        labels = np.repeat(np.arange(10), 7)
        rows = evaluate.stratified(labels, 70, 30, np.random.default_rng(0))
        assert sorted(labels[rows].tolist()) == sorted([*range(10)] * 3)
        assert len(set(rows.tolist())) == 30

    def test_scores_are_never_rounded_to_tf32(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Training is; batch norm's statistics, images, classifiers and annealing are not."""
        seen: dict[str, set[Any]] = {}

        def watch(owner: Any, name: str) -> None:
            call = getattr(owner, name)

            def watched(*given: Any) -> Any:
                found = seen.setdefault(name, set())
                found |= {torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32}
                return call(*given)

            monkeypatch.setattr(owner, name, watched)

        for owner, names in (
            (Trainer, ["updates", "batch"]),
            (evaluate, ["generate", "reconstruct"]),
            (classifiers.Classifier, ["_part"]),
            (ais.AnnealedRun, ["step"]),
        ):
            for name in names:
                watch(owner, name)
        monkeypatch.setattr(evaluate, "STATISTICS", 2)
        one = spec(images=24, precision="tf32")
        verdict = run_job(_job(one, folder=tmp_path))
        assert verdict.end == "done", verdict.reason
        assert seen.pop("updates") == {True}
        assert seen.pop("batch") == {True, False}  # of training, and of statistics
        assert seen.keys() == {"generate", "reconstruct", "_part", "step"}
        allow_tf32(True)  # as after another job
        weights = Model(one, "cpu").nets.state_dict()
        job.score(_job(one, folder=tmp_path), [({"data_sha256": DIGITS.sha256}, weights)], IMAGES)
        classifiers.own("mnist")(DIGITS.test[:2])
        assert all(allowed == {False} for allowed in seen.values()), seen
        allow_tf32(False)

    def test_every_device_scores_the_same_codes_and_noise(self) -> None:
        """The CPU draws them, on "meta" as well, which stands for a GPU."""
        one = spec("svae_r", data="stand-in photos", samples=10)
        model = Model(one, "meta")
        test = torch.from_numpy(np.array(data.load(one.data).test[:10]))
        with Drawn() as mode:
            assert evaluate.generate(model, 10).device.type == "meta"
            assert evaluate.reconstruct(model, test).device.type == "meta"
        assert mode.devices == ["cpu"] * 4  # code and noise of the decoder, the encoder's, again

    def test_the_tolerance_between_devices_tells_float32_from_tf32(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(evaluate, "STATISTICS", 10)
        assert set(evaluate.differences("cpu:0", "mnist").values()) == {0.0}
        own = classifiers.own

        def rounding(name: str, device: str, seed: int) -> classifiers.Classifier:
            classifier = own(name, device, seed)
            for module in classifier.network.modules() if device == "cpu:1" else ():  # type: ignore[attr-defined]
                if isinstance(module, nn.Conv2d | nn.Linear):
                    module.register_forward_pre_hook(lambda module, x: (to_tf32(x[0]),))
            return classifier

        monkeypatch.setattr(evaluate, "own", rounding)
        assert max(evaluate.differences("cpu:1", "mnist").values()) > evaluate.AGREE

    def test_a_training_that_is_not_finite_has_diverged(self, tmp_path: Path) -> None:
        one = spec(lr=1e30)
        rows, samples = job.train(_job(one, folder=tmp_path), _Beat(), IMAGES)  # type: ignore[arg-type]
        assert rows[0]["status"] == "diverged" and "inception_score" not in rows[0]
        assert samples[0]["samples"] == b""


class _Beat:
    def __init__(self) -> None:
        self.shares: list[float] = []

    def __call__(self, share: float) -> None:
        self.shares.append(share)


def _job(*specs: ImageSpec, folder: Path) -> Job:
    return Job(specs, str(folder), "cpu", {"commit": None, "dirty": None})


def test_progress_goes_on_through_training_and_annealing(tmp_path: Path) -> None:
    beat = _Beat()
    rows, _ = job.train(_job(spec(epochs=1), folder=tmp_path), beat, IMAGES)  # type: ignore[arg-type]
    shares = beat.shares
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1)
    (row,) = rows
    assert row["simulated"] == 2 and len(row["log_likelihoods"]) == 10
    assert row["stand_in"] and row["classifier"] == "mnist referee"
    assert row["log_likelihood"] < 0 < row["classifier_accuracy"]


SMALL = ["mnist", "--scale", "smoke", "--only", "method=svae_r,dcgan", "--lam", "0"]
SMALL += ["--set", "width=0.0625", "--set", "images=256", "--engine", "sequential"]
TIMING = {"train_seconds", "cpu_seconds", "evaluation_seconds", "finished", "commit", "dirty"}


def stored(folder: Path) -> pd.DataFrame:
    frame = pd.read_parquet(folder / "mnist" / "smoke").sort_values("id", ignore_index=True)
    return frame.drop(columns=[*TIMING])


@POSIX
def test_a_study_killed_in_training_and_in_annealing_ends_the_same(
    tmp_path: Path, live: Callable[..., Life], no_report: None
) -> None:
    assert run.main([*SMALL, "--results", str(tmp_path / "whole")]) == 0
    whole = stored(tmp_path / "whole")
    assert len(whole) == 2 and (whole["status"] == "ok").all()
    here = [*SMALL, "--results", str(tmp_path / "killed")]
    checkpoints = tmp_path / "killed" / "mnist" / "_smoke" / "checkpoints"
    for kind in ("train", "ais"):
        live(*here, first=[partial(lives.third_checkpoint_kills, kind)]).end(-signal.SIGKILL)
        assert list(checkpoints.glob(f"*.{kind}.safetensors"))
    assert run.main(here) == 0
    pd.testing.assert_frame_equal(stored(tmp_path / "killed"), whole)
    assert not list(checkpoints.glob("*.safetensors"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mnist", "--scale", "quick", "--data", "nowhere"], "nowhere does not exist"),
        (["mnist", "--scale", "quick", "--data", "."], "no mnist in"),
        (["mnist", "--set", "colour=red", "--scale", "smoke"], "allowed: FIELD=VALUE"),
        (["mnist", "--set", "epochs=few", "--scale", "smoke"], "allowed: values of type int"),
        (["mnist", "--set", "bits=wet", "--scale", "smoke"], "allowed: static, dynamic"),
        (["toy_grid", "--data", ".", "--scale", "smoke"], "toy_grid draws its own data"),
    ],
)
def test_bad_input_gets_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run.main([*arguments, "--results", str(tmp_path / "r")]) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1
