"""
First restoration, with its uncertainty
=======================================

A photograph has a hole and noise. ``restore`` returns one picture, draws from the posterior p(image | measurement), and
the spread of the draws: what the measurement leaves open.
"""

import matplotlib.pyplot as plt
import numpy as np
import skimage
import torch

import genprior

# %%
# Part of a photograph of scikit-image, 64 x 64, with values in [0, 1], and a hole: True where pixels are missing.

photo = skimage.data.astronaut()[0:224, 112:336]
photo = skimage.transform.resize(photo, (64, 64), anti_aliasing=True).astype(np.float32)
hole = np.zeros((64, 64), dtype=bool)
hole[24:40, 24:40] = True

# %%
# ``degrade`` simulates the measurement: the operator by name, its parameters, and noise of standard deviation 0.02. For
# a file on disk, skip this step and write ``genprior.restore("holed.png", "inpaint", mask="holes.png", n=16)``.

measurement = genprior.degrade(photo, "inpaint", mask=hole, noise=0.02, seed=0)

# %%
# ``restore`` draws 16 samples and makes the picture. ``print`` names the samplers, the noise, the seed and the cost.

result = genprior.restore(measurement, prior="ddpm-photo", n=16, seed=0, progress=False)
print(result)

# %%
# The picture estimates the posterior mean: the image with the least expected squared error, smooth in the hole. Each
# sample fills the hole in a different way. The prior knows the colours and textures of photographs, but no faces.

truth = torch.from_numpy(photo).movedim(-1, 0)


def show(axis, x, title, **options):
    """An image (C, H, W), or a map (1, H, W), with values beyond [0, 1] cut off."""
    drawn = axis.imshow(x.clamp(0, 1).movedim(0, -1).squeeze(-1), **options)
    axis.set_title(title, fontsize=9)
    axis.set_axis_off()
    return drawn


figure, axes = plt.subplots(1, 6, figsize=(10, 2.1), layout="constrained")
panels = {"measured": measurement.y[0], "picture": result.mean, "photograph": truth}
panels |= {f"sample {k}": result.samples[k] for k in range(3)}
for axis, (title, x) in zip(axes, panels.items()):
    show(axis, x, title)

# %%
# The standard deviation of the draws, averaged over the channels, beside the error of the picture. Where the pixels
# were measured, both are as small as the noise; in the hole both are large.

figure, axes = plt.subplots(1, 2, figsize=(6, 2.8), layout="constrained")
for axis, (title, x) in zip(axes, {"standard deviation": result.std, "error": (result.mean - truth).abs()}.items()):
    drawn = show(axis, x.mean(0, keepdim=True), title, cmap="magma", vmin=0, vmax=0.3)
figure.colorbar(drawn, ax=axes, shrink=0.8)

# %%
# Is the spread right? ``interval(0.5)`` should contain half of the true values. With one photograph, whose pixels are
# correlated, this is a rough check; :doc:`/results` has the coverage on many.

low, high = result.interval(0.5)
held = (low <= truth) & (truth <= high)
inside = torch.from_numpy(hole)
print(f"in the hole:      {held[:, inside].float().mean():.0%} of the values lie in their 50 % interval")
print(f"outside the hole: {held[:, ~inside].float().mean():.0%}")

# %%
# Results are files too: ``result.save("filled.png")`` writes the picture, ``result.save("out.npz")`` everything that is
# needed to draw the same samples again.
