"""
Your own operator
=================

``op=`` takes any linear map from images to measurements: one small class with the map and its adjoint. Conjugate
gradients do the rest, and ``check`` finds mistakes.
"""

import matplotlib.pyplot as plt
import skimage
import torch

import genprior
from genprior.operators import LinearOperator, check

# %%
# A line camera with a vignette: the image darkens towards its edges, and each recorded value is the mean of four
# neighbours in a row. The adjoint of a mean of four spreads the value over the four and divides it by 4.


class LineCamera(LinearOperator):
    """y = mean over 4 columns of (gain x), (C, H, W) -> (C, H, W / 4)."""

    def __init__(self, image_shape):
        channels, height, width = image_shape
        self.image_shape = image_shape
        self.measurement_shape = (channels, height, width // 4)
        across = torch.linspace(-1, 1, width)
        self.gain = 1 - 0.7 * across**2

    def _forward(self, x):
        return (self.gain * x).unflatten(-1, (-1, 4)).mean(-1)

    def _adjoint(self, y):
        return self.gain * y.repeat_interleave(4, dim=-1) / 4

    def _select(self, index):
        return self  # the same for every image of a batch


# %%
# ``check`` compares the map with its adjoint on one draw, as ``restore`` does for every operator that it is given.

A = LineCamera((3, 64, 64))
check(A)

# %%
# A wrong adjoint is refused. Here the division by 4 is missing.


class Wrong(LineCamera):
    def _adjoint(self, y):
        return self.gain * y.repeat_interleave(4, dim=-1)


try:
    check(Wrong((3, 64, 64)))
except TypeError as error:
    print(error)

# %%
# The measurement of a photograph, with noise 0.01, and its restoration. The operator knows its gain, so the result has
# no vignette.

photo = skimage.transform.resize(skimage.data.chelsea()[20:276, 110:366], (64, 64), anti_aliasing=True)
x = torch.from_numpy(photo).float().movedim(-1, 0)
measurement = genprior.degrade(x, A, noise=0.01, seed=0)
result = genprior.restore(measurement, prior="ddpm-photo", n=8, seed=0, progress=False)
print(result)

# %%
# The spread of the draws grows towards the edges, where the camera sees less light, and along edges of the image, which
# four columns do not locate.

panels = {
    "measured": measurement.y[0].repeat_interleave(4, dim=-1),
    "picture": result.mean,
    "one sample": result.samples[0],
    "photograph": x,
}
figure, axes = plt.subplots(1, 5, figsize=(10, 2.3), layout="constrained")
for axis, (title, panel) in zip(axes, panels.items()):
    axis.imshow(panel.clamp(0, 1).movedim(0, -1))
    axis.set_title(title, fontsize=9)
drawn = axes[4].imshow(result.std.mean(0), cmap="magma", vmin=0)
axes[4].set_title("standard deviation", fontsize=9)
figure.colorbar(drawn, ax=axes[4], shrink=0.7)
for axis in axes:
    axis.set_axis_off()

# %%
# The columns near the edges against those in the middle:

spread = result.std.mean((0, 1))
print(f"standard deviation near the edges {spread[[0, -1]].mean():.3f}, in the middle {spread[28:36].mean():.3f}")

# %%
# :doc:`/extending` has closed forms for ``solve``, maps that are not linear, and other laws of the noise. A physics of
# deepinv is an operator too: :doc:`plot_deepinv`.
