"""Who plays: the encoders, decoders and critics of a stack of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.layers import Bank, Shape, xavier

D_X = 2
D_Z = 2
D_EPS = 2
"""Dimensions of data, code and injected noise in the toy study (ALICE's toy script)."""


@dataclass(frozen=True)
class ToyShape:
    """(depth, width) of the three networks of one model."""

    encoder: tuple[int, int]
    decoder: tuple[int, int]
    critic: tuple[int, int]


class Group:
    """Networks of any shapes behind one call: slice i of the input goes to network i.

    Networks of equal shape share a `Bank`, whichever models they belong to. `members[k]` lists
    the networks in bank k.
    """

    def __init__(
        self,
        shapes: Sequence[Shape],
        weights: Sequence[Sequence[np.ndarray]],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        by_shape: dict[Shape, list[int]] = {}
        for i, shape in enumerate(shapes):
            by_shape.setdefault(shape, []).append(i)
        self.members = list(by_shape.values())
        self.banks = [
            Bank(shape, [weights[i] for i in members], device, dtype)
            for shape, members in by_shape.items()
        ]
        order = np.concatenate(self.members)
        self._order = torch.from_numpy(order).to(device)
        self._inverse = torch.from_numpy(np.argsort(order)).to(device)

    def __call__(self, x: Tensor, frozen: bool = False) -> Tensor:
        """(n, d_in, batch) -> (n, d_out, batch); `frozen` parameters get no gradient."""
        if len(self.banks) == 1:
            return self.banks[0](x, frozen)
        parts = x.index_select(0, self._order).split([bank.n for bank in self.banks])
        outputs = [bank(part, frozen) for bank, part in zip(self.banks, parts, strict=True)]
        return torch.cat(outputs).index_select(0, self._inverse)

    def network(self, i: int) -> Tensor:
        """All parameters of network i in one row, detached: W and b of each layer in turn."""
        for bank, members in zip(self.banks, self.members, strict=True):
            if i in members:
                k = members.index(i)
                return torch.cat([t[k].flatten() for layer in bank.layers for t in layer])
        raise IndexError(f"no network {i}")


class ToyNetworks:
    """Implicit encoder z = h(x, eps), decoder x = g(z, eps) and joint critic f(x, z).

    m models side by side. Encoders and decoders have the same number of inputs and outputs, so
    they share one group: network i is the encoder of model i, network m + i its decoder.
    """

    def __init__(
        self,
        shapes: Sequence[ToyShape],
        rngs: Sequence[np.random.Generator],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        """`rngs[i]` draws the initial weights of model i: encoder, then decoder, then critic."""
        self.m = len(shapes)
        encoders = [Shape(D_X + D_EPS, *shape.encoder, D_Z) for shape in shapes]
        decoders = [Shape(D_Z + D_EPS, *shape.decoder, D_X) for shape in shapes]
        critics = [Shape(D_X + D_Z, *shape.critic, 1) for shape in shapes]
        drawn = [
            [xavier(shape, rng) for shape in trio]
            for *trio, rng in zip(encoders, decoders, critics, rngs, strict=True)
        ]
        w_encoder, w_decoder, w_critic = zip(*drawn, strict=True)
        self.coders = Group(encoders + decoders, w_encoder + w_decoder, device, dtype)
        self.critics = Group(critics, w_critic, device, dtype)

    def code(self, x: Tensor, z: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Codes of x and samples from z: z_x, x_z of (m, 2, batch), like x and z.

        `eps` (2 m, 2, batch) is the noise joined to the encoders' inputs, then the decoders'.
        """
        out = self.coders(torch.cat([torch.cat([x, z]), eps], 1))
        return out[: self.m], out[self.m :]

    def logits(
        self, x: Tensor, z_x: Tensor, x_z: Tensor, z: Tensor, frozen: bool = False
    ) -> tuple[Tensor, Tensor]:
        """f on encoder pairs (x, z_x) and decoder pairs (x_z, z): f_q, f_p of (m, batch)."""
        pairs = torch.cat([torch.cat([x, z_x], 1), torch.cat([x_z, z], 1)], 2)
        f = self.critics(pairs, frozen).squeeze(1)
        return f[:, : x.shape[2]], f[:, x.shape[2] :]
