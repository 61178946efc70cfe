"""
A deepinv physics in restore
============================

``op=`` takes any physics of deepinv: here the mosaic of a camera's sensor, with one colour for each pixel.
"""

import deepinv
import matplotlib.pyplot as plt
import skimage
import torch

import genprior

# %%
# A photograph of 64 x 64 pixels, and the physics.

photo = skimage.transform.resize(skimage.data.chelsea()[84:212, 174:302], (64, 64), anti_aliasing=True)
x = torch.from_numpy(photo).float().movedim(-1, 0)
physics = deepinv.physics.Demosaicing(img_size=(3, 64, 64))

# %%
# The mosaic is measured with noise 0.02 and restored. ``restore`` sees only the mosaic, in the shape that the physics
# gives it.

mosaic = genprior.degrade(x, physics, noise=0.02, seed=0).y
result = genprior.restore(mosaic, physics, prior="ddpm-photo", noise=0.02, n=2, steps=15, seed=0, progress=False)
print(result)

# %%

panels = {
    "measured: one colour a pixel": mosaic[0],
    "one sample": result.samples[0],
    "mean of 2": result.mean,
    "photograph": x,
}
figure, axes = plt.subplots(1, len(panels), figsize=(9, 2.6), layout="constrained")
for axis, (title, panel) in zip(axes, panels.items()):
    axis.imshow(panel.clamp(0, 1).movedim(0, -1))
    axis.set_title(title, fontsize=9)
    axis.set_axis_off()
