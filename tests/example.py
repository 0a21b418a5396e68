"""A plug-in that adds one of everything, see bench/README.md.

python -m bench.run blobs --scale smoke --plugin tests/example.py
"""

from torch import Tensor

from bench.data.sources import DATASETS, images_in
from bench.scores.metrics import IMAGES, TOY, Metric, Outputs
from bench.studies import STUDIES
from models import mnist
from models.batch import Batch, Networks, generate
from models.methods import METHODS, Method
from models.objectives import OBJECTIVES, Objective, density_ratio


def hinge(f_q: Tensor, f_p: Tensor) -> Tensor:
    """Hinge form of (19), Lim & Ye 2017."""
    return (1 + f_p).relu().mean(-1) + (1 - f_q).relu().mean(-1)


OBJECTIVES["hinge"] = Objective(density_ratio, hinge, "ALI-hinge", "ALICE-hinge")

mnist.PARTS["f(x), plain"] = lambda shape: mnist.Critic(shape, "conv64 leaky flatten fc1")


def lsgan_critic(nets: Networks, batch: Batch) -> Tensor:
    """Label 1 for generated images, 0 for real ones; Mao et al. 2017, (2)."""
    f_q, f_p = nets["critic"](batch.x), nets["critic"](generate(nets, batch))
    return f_q.square().mean() + (f_p - 1).square().mean()


def lsgan(nets: Networks, batch: Batch, lam: float) -> Tensor:
    """Generated images that pass for real ones; Mao et al. 2017, (2)."""
    return nets["critic"](generate(nets, batch)).square().mean()


_PARTS = {"decoder": "conv", "critic": "f(x), plain"}
METHODS["lsgan"] = Method(lsgan_critic, lsgan, _PARTS, "LSGAN")


def reach(outputs: Outputs) -> float:
    """Reach: the largest number in a sample."""
    return float(outputs.samples.max())


for table in (TOY, IMAGES):
    table.append(Metric(("reach",), reach, "reach"))

DATASETS["letters"] = images_in("letters.npz", channels=1, size=16)

STUDIES["blobs"] = STUDIES["toy_grid"].derive(
    "blobs", axes={"encoder_width": [16, 32]}, methods=["svae_r", "hinge"], lams=[0.1], seeds=2
)
