"""
How sure is it: standard deviation and quantiles
================================================

A restoration is a set of draws from p(x | y). Their mean is the estimate of least squared error; their spread says what
the measurement leaves open.
"""

import matplotlib.pyplot as plt
import numpy as np
import skimage
import torch

import genprior

# %%
# A face with a hole of 12 x 12 over it, restored 16 times. The prior is the one of photographs; ``daps`` is slower than
# the default sampler, but its spread means more, see :doc:`/samplers`.

photo = skimage.data.astronaut()[0:224, 112:336]
photo = skimage.transform.resize(photo, (48, 48), anti_aliasing=True).astype(np.float32)
hole = np.zeros((48, 48), dtype=bool)
hole[18:30, 18:30] = True

measurement = genprior.degrade(photo, "inpaint", mask=hole, noise=0.02, seed=0)
result = genprior.restore(
    measurement, prior="ddpm-photo", sampler=genprior.DAPS(steps=12), n=16, seed=0, progress=False
)
print(result)

# %%
# Each sample fills the hole in its own way: the prior was trained on photographs of all things, and knows colours and
# textures, but no faces. The mean is the better guess by squared error, smooth where the samples differ.


def show(axis, x, title, **options):
    options = options or {"cmap": "gray", "vmin": 0, "vmax": 1}
    picture = axis.imshow(x.clamp(0, 1).movedim(0, -1).squeeze(-1), **options)
    axis.set_title(title, fontsize=9)
    axis.set_axis_off()
    return picture


figure, axes = plt.subplots(2, 4, figsize=(8, 4.4), layout="constrained")
show(axes[0, 0], measurement.y[0], "measured")
for k in range(5):
    show(axes.flat[k + 1], result.samples[k], f"sample {k}")
show(axes[1, 2], result.mean, "mean of 16")
show(axes[1, 3], torch.from_numpy(photo).movedim(-1, 0), "photograph")

# %%
# The standard deviation, pixel by pixel, and an interval that holds nine draws of ten: from the 5 % quantile to the
# 95 % quantile of each value. With 16 draws quantiles are rough.

low, high = torch.quantile(result.samples, torch.tensor([0.05, 0.95]), dim=0)
figure, axes = plt.subplots(1, 4, figsize=(9, 2.6), layout="constrained")
show(axes[0], low, "5 % quantile")
show(axes[1], high, "95 % quantile")
for axis, x, title in [
    (axes[2], result.std, "standard deviation"),
    (axes[3], (result.mean - torch.from_numpy(photo).movedim(-1, 0)).abs(), "error of the mean"),
]:
    figure.colorbar(show(axis, x.mean(0, keepdim=True), title, cmap="magma", vmin=0, vmax=0.3), ax=axis, shrink=0.8)

# %%
# How often does the interval hold the truth, in the hole? If the draws were calibrated, and as many as one likes, 90 %.

truth, inside = torch.from_numpy(photo).movedim(-1, 0), torch.from_numpy(hole)
held = ((low <= truth) & (truth <= high))[:, inside].float().mean()
print(f"in the hole, {held:.0%} of the values lie in their interval")

# %%
# It is far from that: 12 steps are few, 16 draws make an interval too narrow, and the prior is small. Look at what a
# spread holds before you rely on it; ``genprior evaluate`` prints the coverage for your own images.
