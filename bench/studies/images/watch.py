"""Writes the log of a training of images while it runs."""

import math

import torch

from bench.data.load import Images
from bench.render.pixels import side_by_side
from bench.scores.metrics import asks_for, columns
from bench.store.log import Log, harmless, logs_of
from bench.studies.images.evaluate import OF_SEEDS, absent, glance
from bench.studies.images.train import Trainer, spacing
from bench.studies.study import Job

SAMPLES, BATCHES = 1000, 20
"""Samples behind a log's scores, and training batches behind its batch norm, at most.

Rows have more of both, so their scores differ from those of a log.
"""
SCORED = (0.02, 0.1, 0.25, 0.5, 0.75, 1.0)
"""Shares of a training at which its log also has scores and a picture."""


class Watch:
    """Writes the log of one training: losses where the row has them, scores now and then."""

    def __init__(self, job: Job, trainer: Trainer, images: Images) -> None:
        from bench.studies import STUDIES

        spec, self.trainer, self.images = trainer.spec, trainer, images
        study, self.every = STUDIES[spec.study], spacing(trainer.steps)
        dear = {*absent(spec, False), "x_rec_batch", *OF_SEEDS[1], *OF_SEEDS[2]}
        self.metrics = [each for each in study.metrics() if not asks_for(each, dear)]
        self.scored = {self._step(share) for share in SCORED}
        self.n = min(SAMPLES, spec.samples, len(images.test))
        self.folder, names = logs_of(job.work), ("n_samples", *columns(self.metrics))
        steps, epoch = trainer.steps, trainer.steps_per_epoch
        self.last = trainer.step
        self.log = Log(job.work, study.about(spec), names, steps, epoch, trainer.step)

    def _step(self, share: float) -> int:
        """Returns the first step with losses after this share of the training, or the last step."""
        steps = self.trainer.steps
        return min(steps, self.every * math.ceil(share * steps / self.every))

    def due(self) -> bool:
        """Says whether the training has come to a step that wants a record."""
        step = self.trainer.step
        return step > self.last and (step % self.every == 0 or step in self.scored)

    def __call__(self) -> None:
        """Writes the record of the step that was just made."""
        self.last = self.trainer.step
        step, losses, scores, picture = self.trainer.step, (None, None), {}, b""
        if self.trainer.losses and self.trainer.losses[-1][0] == step:
            losses = self.trainer.losses[-1][1:]
        if step in self.scored:
            with harmless(self.folder):
                with torch.cuda.stream(self.trainer.stream):
                    found, pictures = glance(
                        self.trainer, self.images, self.metrics, self.n, BATCHES
                    )
                scores = {"n_samples": self.n, **found} if found else {}
                if pictures:
                    none = pictures["x"][:0]
                    picture = side_by_side(**{"x_rec": none, **pictures})
        self.log.record(step, self.trainer.seconds, losses, scores, picture)
