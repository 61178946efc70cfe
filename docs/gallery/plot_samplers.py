"""
Four samplers against a known posterior
=======================================

With a Gaussian prior, p(x | y) is a Gaussian in closed form. So the mean and variance of many draws of each sampler can
be compared with the truth, pixel by pixel.
"""

import matplotlib.pyplot as plt
import torch

import genprior
from genprior.operators import Inpaint

# %%
# The prior: images of 12 x 12 whose pixels are correlated over about 3 pixels, with standard deviation 0.2 around 0.5.

side = 12
pixels = torch.cartesian_prod(torch.arange(side), torch.arange(side)).double()
S = 0.04 * torch.exp(-torch.cdist(pixels, pixels) / 3)
prior = genprior.Gaussian(torch.full((1, side, side), 0.5), S.float())

# %%
# The measurement: every pixel but those of the right half, with noise 0.1.

mask = torch.zeros(side, side, dtype=torch.bool)
mask[:, side // 2 :] = True
x = prior.sample(1, seed=3).clamp(0, 1)
measurement = genprior.degrade(x, Inpaint(mask, (1, side, side)), noise=0.1, seed=0)

# %%
# The true variance, S - S Aᵀ (A S Aᵀ + noise² I)⁻¹ A S, and that of 200 draws of each sampler. ``mmps`` gets more
# iterations than by default, ``dps`` fewer steps to save time.

seen = ~mask.flatten()
gain = torch.linalg.solve(S[seen][:, seen] + 0.1**2 * torch.eye(int(seen.sum())), S[seen])
truth = (S - S[:, seen] @ gain).diagonal().reshape(side, side)

samplers = {
    "exact": genprior.Exact(),
    "mmps": genprior.MMPS(iterations=8),
    "diffpir": genprior.DiffPIR(),
    "dps": genprior.DPS(steps=150),
}
draws = {
    name: genprior.restore(measurement, prior=prior, sampler=sampler, n=200, seed=0, progress=False)
    for name, sampler in samplers.items()
}

# %%
# The variance of each pixel over the true one: 1 is right. With 200 draws its standard error is 10 %.

figure, axes = plt.subplots(2, 4, figsize=(9, 4.6), layout="constrained")
for column, (name, result) in zip(axes.T, draws.items()):
    ratio = (result.std[0] ** 2 / truth).numpy()
    column[0].imshow(result.mean[0], cmap="gray", vmin=0, vmax=1)
    column[0].set_title(f"{name}: mean", fontsize=9)
    picture = column[1].imshow(ratio, cmap="RdBu_r", vmin=0, vmax=2)
    column[1].set_title("variance / truth", fontsize=9)
    half = torch.from_numpy(ratio)
    print(f"{name:8} seen {half[~mask].mean():.2f}, unseen {half[mask].mean():.2f}")
for axis in axes.flat:
    axis.set_axis_off()
figure.colorbar(picture, ax=axes[1], shrink=0.8)

# %%
# ``exact`` is right, and ``mmps`` approaches it as its steps grow. ``diffpir``, made for the squared error of
# photographs, has about half the variance. ``dps`` ignores the noise level: where the image was measured, its draws
# are nearly the same. :doc:`/truth` has such figures for all samplers.
