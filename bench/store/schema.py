"""The columns of stored results, study by study."""

from __future__ import annotations

import json
from dataclasses import MISSING, fields
from functools import cache

import pyarrow as pa

from bench.spec import columns
from bench.studies import STUDIES

SCHEMA_VERSION = 3
"""Bumped when columns change. Older files are read, newer ones refused with advice."""

DEFAULT = "bench.default"

_TYPES = {str: pa.string(), int: pa.int64(), float: pa.float64()}

IDENTITY = [
    ("id", pa.string()),  # Spec.id
    ("config", pa.string()),  # Spec.config: equal for runs that are compared in pairs
    ("protocol", pa.int64()),  # bench.spec.protocol
    ("label", pa.string()),  # name in tables: method and whether lambda > 0
    ("status", pa.string()),  # "ok", or "diverged": parameters or outputs not finite
]

PROVENANCE = [
    ("commit", pa.string()),  # of the suite, null outside a git checkout
    ("dirty", pa.bool_()),  # whether tracked files differed from the commit
    ("suite", pa.string()),  # versions
    ("python", pa.string()),
    ("torch", pa.string()),
    ("numpy", pa.string()),
    ("device", pa.string()),  # "cpu" or "cuda"
    ("device_name", pa.string()),
    ("threads", pa.int64()),  # of the process that trained it
    ("stack_size", pa.int64()),  # trainings in the same tensor program
    ("train_seconds", pa.float64()),  # of the stack, evaluation left out, per member
    ("finished", pa.timestamp("us", tz="UTC")),
]

METRICS = {
    "toy_grid": [  # null where diverged; see bench.studies.toy_grid.metrics
        ("inception_score", pa.float64()),  # 1 to 5
        ("mse_x", pa.float64()),  # of reconstructed data, mean over points and coordinates
        ("mse_z", pa.float64()),  # of reconstructed codes
        ("modes", pa.int64()),  # of 5
        ("high_quality", pa.float64()),  # share of samples within 3 sd of a centre
        ("n_samples", pa.int64()),  # samples, splits and classifier behind the score
        ("n_splits", pa.int64()),
        ("classifier", pa.string()),
        # over training; see bench.studies.toy_grid.evaluate.Evaluation.decoder_gradient
        ("trace_epoch", pa.list_(pa.int64())),
        ("decoder_gradient", pa.map_(pa.string(), pa.list_(pa.float32()))),  # by method
    ],
    "images": [  # null where diverged; see bench.studies.images.evaluate
        ("inception_score", pa.float64()),  # by the referee: mean and sd over splits of `samples`
        ("inception_sd", pa.float64()),
        ("real_score", pa.float64()),  # of the real test images
        ("frechet", pa.float64()),  # distance to the real test images in the referee's features
        ("n_splits", pa.int64()),
        ("classifier", pa.string()),  # the referee, its weights and its own test accuracy
        ("classifier_sha256", pa.string()),
        ("classifier_accuracy", pa.float64()),
        ("mse_x", pa.float64()),  # of reconstructed test images on [-1, 1]; null: no encoder
        # sliced Wasserstein distance of `samples` to the real test images, and of training images
        ("swd", pa.float64()),
        ("swd_real", pa.float64()),
        # by ImageNet's classifier, against the real test images; null without its weights
        ("inception_score_imagenet", pa.float64()),
        ("inception_sd_imagenet", pa.float64()),
        ("fid", pa.float64()),
        ("kid", pa.float64()),
        ("kid_sd", pa.float64()),
        ("imagenet_n_samples", pa.int64()),  # and how they were made
        ("imagenet_n_real", pa.int64()),
        ("imagenet_splits", pa.int64()),
        ("imagenet_shuffle", pa.bool_()),
        ("imagenet_seed", pa.int64()),
        ("imagenet_kid_subsets", pa.int64()),
        ("imagenet_kid_subset_size", pa.int64()),
        ("imagenet_weights_sha256", pa.string()),
        ("log_likelihood", pa.float64()),  # AIS's lower bound, nats, mean over `ais_images`
        ("log_likelihood_se", pa.float64()),
        ("log_likelihoods", pa.list_(pa.float64())),  # of each image
        ("bdmc_gap", pa.float64()),  # upper minus lower bound on images simulated from the model
        ("bdmc_gap_se", pa.float64()),
        ("simulated", pa.int64()),  # so many of them
        ("acceptance", pa.float64()),  # of the trajectories
        ("data_sha256", pa.string()),  # of the images
        ("stand_in", pa.bool_()),  # drawn, not photographed or written by anybody
        ("steps", pa.int64()),
        ("trace_step", pa.list_(pa.int64())),  # losses over training
        ("critic_loss", pa.list_(pa.float64())),
        ("model_loss", pa.list_(pa.float64())),
        ("evaluation_seconds", pa.float64()),  # scores and AIS; `train_seconds` has neither
    ],
}

_POINTS = pa.list_(pa.float32())
SAMPLES = {
    # 256 points a column, (x0, y0, x1, y1, ...): data, their reconstructions, samples
    "toy_grid": [("id", pa.string()), ("x", _POINTS), ("x_rec", _POINTS), ("samples", _POINTS)],
    # up to 64 uint8 images a column, each (c, h, w) as in `shape`: real test images, their
    # reconstructions (none without an encoder), samples
    "images": [
        ("id", pa.string()),
        ("shape", pa.list_(pa.int64())),
        ("x", pa.binary()),
        ("x_rec", pa.binary()),
        ("samples", pa.binary()),
    ],
}


@cache
def rows(study: str) -> pa.Schema:
    """One row a finished training: identity, every field of its spec, metrics, provenance.

    The metadata of a spec's field carry its default as JSON: what rows have that are older than
    the field.
    """
    kind = STUDIES[study].kind
    defaults = {f.name: f.default for f in fields(kind) if f.default is not MISSING}
    spec = [
        pa.field(
            name,
            _TYPES[type_],
            metadata={DEFAULT: json.dumps(defaults[name])} if name in defaults else None,
        )
        for name, type_ in columns(kind).items()
    ]
    named = [pa.field(*each) for each in (*METRICS[STUDIES[study].package], *PROVENANCE)]
    return pa.schema([*(pa.field(*each) for each in IDENTITY), *spec, *named])


@cache
def samples(study: str) -> pa.Schema:
    """What is kept of a training for pictures."""
    return pa.schema(SAMPLES[STUDIES[study].package])
