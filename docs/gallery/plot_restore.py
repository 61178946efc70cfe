"""
A photograph, five tasks
========================

A photograph is measured in five ways, and restored from each measurement alone with one prior.
"""

import matplotlib.pyplot as plt
import numpy as np
import skimage
import torch

import genprior

# %%
# Part of a photograph, 64 x 64, with values in [0, 1].

photo = skimage.data.chelsea()[20:276, 110:366]
photo = skimage.transform.resize(photo, (64, 64), anti_aliasing=True).astype(np.float32)

# %%
# Five degradations: an operator by name, its parameters, and noise of standard deviation 0.025. A named operator is
# built for the image; blurs reach past the frame, so their measurements are a little smaller.

tasks = {
    "70 % missing": ("inpaint", {"mask": "random", "fraction": 0.7}),
    "super-resolution x 4": ("super-resolution", {"scale": 4}),
    "Gaussian blur": ("gaussian-deblur", {"width": 1.5}),
    "motion blur": ("motion-deblur", {"length": 11, "angle": 30}),
    "colours": ("colorize", {}),
}


def show(axis, x, title):
    """An image (C, H, W) of any size, with values beyond [0, 1] cut off."""
    axis.imshow(torch.as_tensor(x).clamp(0, 1).movedim(0, -1).squeeze(-1), cmap="gray", vmin=0, vmax=1)
    axis.set_title(title, fontsize=9)
    axis.set_axis_off()


figure, axes = plt.subplots(len(tasks), 4, figsize=(7, 9), layout="constrained")
for row, (task, (op, parameters)) in zip(axes, tasks.items()):
    measurement = genprior.degrade(photo, op, noise=0.025, seed=0, **parameters)
    result = genprior.restore(measurement, prior="ddpm-photo", n=2, steps=15, seed=0, progress=False)
    truth = measurement.operator.frame(torch.from_numpy(photo).movedim(-1, 0))
    panels = {task: measurement.y[0], "one sample": result.samples[0], "mean of 2": result.mean}
    for axis, (title, x) in zip(row, {**panels, "photograph": truth}.items()):
        show(axis, x, title)

# %%
# ``restore`` estimates nothing here: the measurement carries its operator and its noise. For a file on disk, name what
# happened to it, as in ``genprior.restore("small.png", "super-resolution", scale=4)``.
print(result)

# %%
# A grey image says little about the colours: the draws choose some, seldom the right ones. With few pixels or a
# strong blur the prior supplies the details.
