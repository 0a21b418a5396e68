"""Compares a training with its images, before it is trained: what it takes and what scores need."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from bench.cli import UsageError
from bench.data.load import Images
from bench.scores.metrics import SPLITS
from bench.spec import option
from bench.studies.images.evaluate import classifier_of, static
from bench.studies.images.spec import ImageSpec

STATIC = 10_000
"""Images of the static binarization, which is of MNIST's whole test set."""
MORE = "--data with more images; every tenth is for the test"


def fitted(spec: ImageSpec, images: Images, own: Mapping[str, int]) -> ImageSpec:
    """Returns the training with less of the study's `own` values where the images allow less.

    The study's own number of images takes what there is of a smaller data set, and stays as it is.
    """
    train, bits = len(images.train), STATIC if static(spec, images) else len(images.test)
    most = {"batch": max(train, 2), "ais_images": bits}
    less = {
        field: n
        for field, n in most.items()
        if getattr(spec, field) == own.get(field) and getattr(spec, field) > n
    }
    return replace(spec, **less)


def check(spec: ImageSpec, images: Images, imagenet: bool, own: int | None = None) -> None:
    """Raises UsageError for a training that these images can't train, or whose scores they lack.

    `imagenet` says whether ImageNet's classifier scores as well. The study's `own` number of images
    takes what there is of a smaller data set.
    """
    train, test = len(images.train), len(images.test)
    place = images.name if images.stand_in else images.origin
    asked = min(spec.images, train) if spec.images == own else spec.images
    used = asked or train
    needed, score = _needed(images, imagenet)
    bits = STATIC if static(spec, images) else test
    norm, those = "for batch norm", f"the training images of {place}"
    for name, given, least, most, why, change in (
        ("images", asked, 0, train, f"{those}; 0: all", option("images")),
        ("number of training images", train, 2, math.inf, norm, MORE),
        ("images", used, 2, train, norm, option("images")),
        ("batch", spec.batch, 2, used, f"{those} that are used", option("batch")),
        ("number of test images", test, needed, math.inf, score, MORE),
        ("ais_images", spec.ais_images, 0, bits, "the test images", option("ais_images")),
    ):
        if not least <= given <= most:
            allowed = f"at least {least}" if most == math.inf else f"{least} to {most}"
            raise UsageError(f"{name} is {given}; allowed: {allowed}, {why} ({change})")


def _needed(images: Images, imagenet: bool) -> tuple[int, str]:
    """Returns how many test images the scores need, and which score needs the most."""
    if classifier_of(images):
        return SPLITS, "one for each split of the inception score"
    if imagenet:
        return 2, "for FID and KID"
    return 2, "for the sliced Wasserstein distance"
