"""Defines what one training of the toy study is."""

from __future__ import annotations

from dataclasses import dataclass

from bench.spec import Spec

N_TRAIN = 2048
"""Points and codes of a training."""


@dataclass(frozen=True, kw_only=True)
class ToySpec(Spec):
    """Describes one training of the toy study. ALICE's toy script has the defaults."""

    encoder_depth: int = 2  # hidden layers
    decoder_depth: int = 2
    critic_depth: int = 2
    encoder_width: int = 256  # units of each hidden layer
    decoder_width: int = 256
    critic_width: int = 256
    model_steps: int = 5  # updates of encoder and decoder on a batch
    dropout: float = 0.0  # share of hidden units that training sets to 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.at_least(encoder_depth=1, decoder_depth=1, critic_depth=1, model_steps=1)
        self.at_least(encoder_width=1, decoder_width=1, critic_width=1)
        if self.batch > N_TRAIN:
            raise self.wrong("batch", f"at most {N_TRAIN}, the toy study's training points")
        if not 0 <= self.dropout < 1:
            raise self.wrong("dropout", "a number >= 0 and < 1")

    @property
    def depths(self) -> tuple[int, int, int]:
        """The depths of encoder, decoder and critic."""
        return self.encoder_depth, self.decoder_depth, self.critic_depth

    @property
    def widths(self) -> tuple[int, int, int]:
        """The widths of encoder, decoder and critic."""
        return self.encoder_width, self.decoder_width, self.critic_width
