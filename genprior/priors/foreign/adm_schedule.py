"""The schedule of a chain, as other libraries store it among a network's weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from genprior.priors.chain import BETAS

# How stored buffers give alpha_bar, the most precise first.
OF_KEPT: dict[str, Callable[[Tensor], Tensor]] = {
    "betas": lambda b: (1 - b).cumprod(0),
    "alphas_cumprod": lambda a: a,
    "alphas_bar": lambda a: a,
    "sqrt_alphas_cumprod": torch.square,
    "sqrt_alphas_bar": torch.square,
}
# Other stored buffers, which follow from the schedule.
OTHERS = (
    "alphas", "alphas_cumprod_prev", "alphas_cumprod_next", "sqrt_one_minus_alphas_cumprod", "sqrt_1m_alphas_cumprod",
    "sqrt_one_minus_alphas_bar", "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recip_alphas",
    "sqrt_recipm1_alphas_cumprod", "posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1",
    "posterior_mean_coef2", "loss_weight", "p2_loss_weight", "lvlb_weights", "snr", "logvar",
)  # fmt: skip
SCHEDULE = frozenset((*OF_KEPT, *OTHERS))
# Relative rounding of alpha_bar after 1000 products in float32.
ROUNDING = 1e-3


def chain_in(buffers: Mapping[str, Tensor], name: str) -> dict[str, Any] | None:
    """Return `betas`, by name if known, else as numbers, and `steps`; None if the checkpoint holds no schedule.

    Raises:
        ValueError: the stored numbers are not a chain.
    """
    kept = next((key for key in OF_KEPT if key in buffers), None)
    if kept is None:
        return None
    alpha_bars = OF_KEPT[kept](buffers[kept].double().flatten())
    steps = len(alpha_bars)
    falling = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bars])
    betas = 1 - falling[1:] / falling[:-1]
    if not steps > 1 or not bool(((alpha_bars > 0) & (betas > 0)).all()):
        raise ValueError(f"{name} keeps {kept} that is no chain: alpha_bar must fall from below 1, and stay above 0.")
    for known, make in BETAS.items():
        if torch.allclose((1 - make(steps)).cumprod(0), alpha_bars, rtol=ROUNDING, atol=0):
            return {"betas": known, "steps": steps}
    return {"betas": betas.tolist(), "steps": steps}
