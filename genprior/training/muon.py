"""Muon: steps along the orthogonal part of the momentum of each convolution, AdamW for all other parameters."""

import torch
from einops import rearrange
from torch import Tensor, nn

SMALLEST = 32  # sides from which on a kernel, as a matrix, is large enough to be worth it
MOMENTUM = 0.95
QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan's: singular values from about 1e-3 on end between .7 and 1.2
ITERATIONS = 5


class Muon(torch.optim.AdamW):
    """AdamW, but kernels of convolutions W, (out, in k k) as a matrix, take steps of which all directions are as long:

        M = .95 M + .05 G,   U S V^T ~ .05 G + .95 M,   W -= .2 sqrt(max(out, in k k)) lr U V^T

    The factor .2 sqrt(...) gives steps the size that AdamW's have, so that one learning rate suits both. U V^T comes
    from five Newton-Schulz iterations.

    References: K. Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024; J. Liu et al., Muon is
    scalable for LLM training, 2025, for the size of steps and weight decay. PyTorch's own takes matrices only.

    Arguments: those of `torch.optim.AdamW`.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for W in group["params"]:
                if W.grad is not None and is_hidden_kernel(W):
                    self._step_along_orthogonal(W, W.grad, group["lr"], group["weight_decay"])
                    W.grad = None  # nothing is left of it for AdamW
        super().step()

    def _step_along_orthogonal(self, W: nn.Parameter, G: Tensor, lr: float, weight_decay: float) -> None:
        state = self.state[W]
        if not state:  # AdamW wants to find a step in every state that it loads
            state.update(step=torch.tensor(0.0), momentum=torch.zeros_like(W))
        M = state["momentum"]
        M.lerp_(G, 1 - MOMENTUM)
        # the order of columns is free, and this one is that of the memory where channels are last
        Q = orthogonal(rearrange(G.lerp(M, MOMENTUM), "m n i j -> m (i j n)"))
        Q = rearrange(Q, "m (i j n) -> m n i j", i=W.shape[2], j=W.shape[3])
        W.mul_(1 - lr * weight_decay).add_(Q, alpha=-0.2 * max(len(W), W[0].numel()) ** 0.5 * lr)


def is_hidden_kernel(W: Tensor) -> bool:
    """Whether it is the kernel of a convolution between hidden layers; not the last one of images, nor an embedding."""
    return W.ndim == 4 and W[0, 0].numel() > 1 and min(len(W), W[0].numel()) >= SMALLEST


def orthogonal(G: Tensor) -> Tensor:
    """About U V^T of G = U S V^T, (m, n), by iterations  X <- p(X X^T) X,  p(A) = a I + b A + c A^2,  from G / |G| on.

    X X^T follows from the last one, A <- p(A) A p(A), so that the iterations are on the shorter side alone.
    """
    if len(G) > G.shape[1]:
        return orthogonal(G.T).T
    a, b, c = QUINTIC
    X = G.float() / G.norm().clamp_min(1e-7)
    A = X @ X.T
    eye = torch.eye(len(A), dtype=A.dtype, device=A.device)
    product = eye
    for _ in range(ITERATIONS):
        p = a * eye + b * A + c * A @ A
        product, A = p @ product, p @ A @ p
    return (product @ X).to(G.dtype)
