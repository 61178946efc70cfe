"""Muon: steps along the orthogonal part of the momentum of each convolution, AdamW for all other parameters."""

import torch
from einops import rearrange
from torch import Tensor, nn

SMALLEST = 32  # smallest side of a kernel, as a matrix, for which Muon pays off
MOMENTUM = 0.95
QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan's: singular values above about 1e-3 end between .7 and 1.2
ITERATIONS = 5


class Muon(torch.optim.AdamW):
    """AdamW, but convolution kernels W, as matrices (out, in k k), take steps of equal length in all directions:

        M = .95 M + .05 G,   U S V^T ~ .05 G + .95 M,   W -= .2 sqrt(max(out, in k k)) lr U V^T

    The factor .2 sqrt(...) gives the steps the size of AdamW's, so that one learning rate suits both. U V^T comes from
    five Newton-Schulz iterations.

    References: K. Jordan et al., Muon: an optimizer for hidden layers in neural networks, 2024; J. Liu et al., Muon is
    scalable for LLM training, 2025, for the size of steps and weight decay. PyTorch's own Muon takes matrices only.

    Arguments: those of `torch.optim.AdamW`.
    """

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for W in group["params"]:
                if W.grad is not None and is_hidden_kernel(W):
                    self._step_along_orthogonal(W, W.grad, group["lr"], group["weight_decay"])
                    W.grad = None  # so that AdamW skips W
        super().step()

    def _step_along_orthogonal(self, W: nn.Parameter, G: Tensor, lr: float, weight_decay: float) -> None:
        state = self.state[W]
        if not state:  # AdamW expects a step in every state it loads
            state.update(step=torch.tensor(0.0), momentum=torch.zeros_like(W))
        M = state["momentum"]
        M.lerp_(G, 1 - MOMENTUM)
        # any order of columns will do; this one is the memory order of channels-last tensors
        Q = orthogonal(rearrange(G.lerp(M, MOMENTUM), "m n i j -> m (i j n)"))
        Q = rearrange(Q, "m (i j n) -> m n i j", i=W.shape[2], j=W.shape[3])
        W.mul_(1 - lr * weight_decay).add_(Q, alpha=-0.2 * max(len(W), W[0].numel()) ** 0.5 * lr)


def is_hidden_kernel(W: Tensor) -> bool:
    """Whether W is the kernel of a convolution between hidden layers: not the last one, to images, nor an embedding."""
    return W.ndim == 4 and W[0, 0].numel() > 1 and min(len(W), W[0].numel()) >= SMALLEST


def orthogonal(G: Tensor) -> Tensor:
    """Approximate U V^T of G = U S V^T, (m, n), by X <- p(X X^T) X, p(A) = a I + b A + c A^2, starting at X = G / |G|.

    A = X X^T is updated as A <- p(A) A p(A), so that the iterations work on the shorter side alone.
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
