"""Normalising flows make a Gaussian posterior more flexible."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.layers import Linear

PLANAR_STEPS = 80  # k of Table 1's NF (Rezende & Mohamed 2015)
AUTOREGRESSIVE_STEPS = 4  # Kingma et al. 2016, figure 2 and section 6, take 4 steps on MNIST.
_STRAIGHT = math.log(math.e - 1)  # softplus of this number is 1


class PlanarFlow(nn.Module):
    """Repeats z <- z + u tanh(w z + b) k times; Rezende & Mohamed 2015, equations (10) to (12).

    A linear layer of the encoder's features gives u, w and b of every step, as in section 4.2
    there. u is bent so that w u >= -1, which makes each step invertible (appendix A.1). We bend it
    by softplus(w u + log(e - 1)) - 1, which leaves w u = 0. Appendix A.1 has softplus(w u) - 1,
    which throws z far away for small w. The layer's output is divided by the square root of its
    number of inputs, because 80 steps multiply an update of Adam.
    """

    def __init__(self, d: int, d_h: int, steps: int = PLANAR_STEPS) -> None:
        super().__init__()
        self.d, self.steps = d, steps
        self.amortised = Linear(d_h, steps * (2 * d + 1))

    def forward(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Returns flown z and log |det dz'/dz| (n,) of z (n, d) and features (n, d_h)."""
        steps = (self.amortised(h) / math.sqrt(h.shape[1])).unflatten(1, (self.steps, -1))
        u, w, b = steps.split((self.d, self.d, 1), 2)
        wu = (w * u).sum(2, keepdim=True)
        bent = F.softplus(wu + _STRAIGHT) - 1
        u = u + (bent - wu) * w / w.square().sum(2, keepdim=True).clamp_min(1e-12)
        bends = []
        for i in range(self.steps):
            bends.append(torch.tanh((z * w[:, i]).sum(1, keepdim=True) + b[:, i]))
            z = torch.addcmul(z, u[:, i], bends[-1])
        slope = 1 - torch.cat(bends, 1).square()
        return z, torch.log1p(slope * (w * u).sum(2)).sum(1)


class _Masked(nn.Linear):
    """Is a linear layer with a fixed mask on its weights."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.mask, self.bias)


class _Step(nn.Module):
    """Is a masked autoregressive network (Germain et al. 2015) with a hidden layer and context."""

    def __init__(self, d: int, d_h: int, hidden: int) -> None:
        super().__init__()
        order = torch.arange(d)
        degree = torch.arange(hidden) % max(1, d - 1)
        self.inner = _Masked((degree[:, None] >= order).float())
        self.context = nn.Linear(d_h, hidden, bias=False)
        self.shift, self.gate = (_Masked((order[:, None] > degree).float()) for _ in range(2))

    def forward(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        a = F.elu(self.inner(z) + self.context(h))
        return self.shift(a), self.gate(a)


class AutoregressiveFlow(nn.Module):
    """Repeats z <- s z + (1 - s) m with s = sigma(gate + 1), and reverses coordinates, 4 times.

    This is inverse autoregressive flow in its stable form, Kingma et al. 2016, equations (10), (13)
    and (14) and algorithm 1. The gate's bias of 1 makes first steps near identities.
    """

    def __init__(self, d: int, d_h: int, steps: int = AUTOREGRESSIVE_STEPS) -> None:
        super().__init__()
        self.steps = nn.ModuleList(_Step(d, d_h, 4 * d) for _ in range(steps))

    def forward(self, z: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Returns flown z and log |det dz'/dz| (n,) of z (n, d) and features (n, d_h)."""
        log_det = z.new_zeros(len(z))
        for step in self.steps:
            m, gate = step(z, h)
            log_s = F.logsigmoid(gate + 1)
            s = log_s.exp()
            z = (s * z + (1 - s) * m).flip(1)
            log_det = log_det + log_s.sum(1)
        return z, log_det
