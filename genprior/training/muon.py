"""Muon: steps along the orthogonal part of the momentum of each convolution, AdamW for all other parameters."""

import torch
from torch import Tensor, nn

SMALLEST = 32  # sides from which on a kernel, as a matrix, is large enough to be worth it
MOMENTUM = 0.95
QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan's: singular values from about 1e-3 on end between .7 and 1.2
ITERATIONS = 5


class Muon(torch.optim.AdamW):
    """AdamW, but kernels of convolutions W, (out, in k k) as a matrix, take steps of which all directions are as long:

        M = .95 M + .05 G,   U S V^T ~ .05 G + .95 M,   W -= .2 sqrt(max(out, in k k)) lr U V^T

    The factor .2 sqrt(...) gives steps the size that AdamW's have, so that one learning rate suits both. U V^T comes
    from five Newton-Schulz iterations in bfloat16, whose cost is that of a few images more in a batch.

    References: K. Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024; J. Liu et al., Muon is
    scalable for LLM training, 2025, for the size of steps and weight decay. PyTorch's own takes matrices only.

    Arguments: those of `torch.optim.AdamW`.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for W in group["params"]:
                if W.grad is not None and is_hidden_kernel(W):
                    self._step_along_orthogonal(W, group["lr"], group["weight_decay"])
                    W.grad = None  # nothing is left of it for AdamW
        super().step()

    def _step_along_orthogonal(self, W: nn.Parameter, lr: float, weight_decay: float) -> None:
        G = W.grad
        # AdamW wants to find a step in every state that it loads
        state = self.state[W]
        state.setdefault("step", torch.tensor(0.0))
        M = state.setdefault("momentum", torch.zeros_like(W))
        M.lerp_(G, 1 - MOMENTUM)
        Q = orthogonal(G.lerp(M, MOMENTUM).flatten(1)).view_as(W)
        W.mul_(1 - lr * weight_decay)
        W.add_(Q, alpha=-0.2 * max(len(W), W[0].numel()) ** 0.5 * lr)


def is_hidden_kernel(W: Tensor) -> bool:
    """Whether it is of a convolution between layers of some width; the last one of images, and embeddings, are not."""
    return W.ndim == 4 and W[0, 0].numel() > 1 and min(len(W), W[0].numel()) >= SMALLEST


def orthogonal(G: Tensor) -> Tensor:
    """About U V^T of G = U S V^T, (m, n): X <- a X + (b X X^T + c (X X^T)^2) X, from G / |G| on."""
    a, b, c = QUINTIC
    X = (G / G.norm().clamp_min(1e-7)).bfloat16()
    X = X.T if len(X) > X.shape[1] else X
    for _ in range(ITERATIONS):
        A = X @ X.T
        X = a * X + (b * A + c * A @ A) @ X
    return (X.T if len(G) > G.shape[1] else X).to(G.dtype)
