"""Adam with its step count on the host; that of `torch.optim` is a tensor, which every step must read."""

import torch
from torch import Tensor

EPS = 1e-8


class Adam:
    """Adam's update for a gradient: x <- x - adam(g), element by element.

        m  <- b_1 m + (1 - b_1) g,   v <- b_2 v + (1 - b_2) g^2
        rate m_hat / (sqrt(v_hat) + 1e-8),   m_hat = m / (1 - b_1^k),   v_hat = v / (1 - b_2^k) at the k-th step

    References: D. P. Kingma, J. Ba, Adam: a method for stochastic optimization, 2015.

    Arguments:
        rate: approximate step length of each element, in its units.
        betas: b_1 and b_2.
    """

    def __init__(self, rate: float, betas: tuple[float, float] = (0.9, 0.999)):
        self.rate, self.betas = rate, betas
        self.k, self.m, self.v = 0, 0.0, 0.0

    @torch.no_grad()
    def __call__(self, g: Tensor) -> Tensor:
        b_1, b_2 = self.betas
        self.k += 1
        self.m = b_1 * self.m + (1 - b_1) * g
        self.v = b_2 * self.v + (1 - b_2) * g**2
        m_hat = self.m / (1 - b_1**self.k)
        v_hat = self.v / (1 - b_2**self.k)
        return self.rate * m_hat / (v_hat.sqrt() + EPS)
