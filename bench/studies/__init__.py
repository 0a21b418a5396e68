"""`STUDIES` lists all studies. A new study is a folder beside them and a line below."""

from __future__ import annotations

from typing import Any

from bench.studies.celeba.study import CELEBA
from bench.studies.cifar10.study import CIFAR10
from bench.studies.mnist.study import MNIST
from bench.studies.study import Study
from bench.studies.theory.study import THEORY
from bench.studies.toy_grid.study import TOY_GRID

STUDIES: dict[str, Study[Any]] = {
    TOY_GRID.name: TOY_GRID,
    MNIST.name: MNIST,
    CIFAR10.name: CIFAR10,
    CELEBA.name: CELEBA,
    THEORY.name: THEORY,
}
