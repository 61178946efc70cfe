"""
Flowers: a prior that knows what they look like
===============================================

Most of a flower is missing, or all but 8 x 8 pixels of it. Many flowers explain what was measured. ``ddpm-flowers``
draws some of them; with a label, flowers of one kind.
"""

import matplotlib.pyplot as plt
import torch

import genprior

# %%
# A flower is drawn from the prior itself, given the label "sunflowers": no data set is needed. The prior fits its own
# draw better than a photograph; :doc:`/flowers` shows photographs that no prior has seen.

prior = genprior.load_prior("ddpm-flowers")
print(prior.class_names)
flower = prior.given("sunflowers").sample(1, seed=3, steps=100).clamp(0, 1)

# %%
# Three measurements of it, and draws from each posterior. They agree on what was measured, and differ where it leaves a
# choice.

measurements = {
    "a hidden box": genprior.degrade(flower, "inpaint", mask="box", size=32, noise=0.025, seed=0),
    "92 % missing": genprior.degrade(flower, "inpaint", mask="random", fraction=0.92, noise=0.025, seed=0),
    "8 x 8 pixels": genprior.degrade(flower, "super-resolution", scale=8, noise=0.025, seed=0),
}


def show(axis, x, title):
    axis.imshow(x.clamp(0, 1).movedim(0, -1))
    axis.set_title(title, fontsize=8)
    axis.set_axis_off()


figure, axes = plt.subplots(3, 7, figsize=(9, 4.2), layout="constrained")
for row, (what, measurement) in zip(axes, measurements.items()):
    result = genprior.restore(measurement, prior=prior, n=8, seed=0, progress=False)
    spread = result.samples.std(0).mean(0, keepdim=True).expand(3, -1, -1)
    panels = {what: measurement.y[0], **{f"draw {k + 1}": result.samples[k] for k in range(3)}}
    panels |= {"mean of 8": result.samples.mean(0), "spread": spread / spread.max(), "flower": flower[0]}
    for axis, (title, x) in zip(row, panels.items()):
        show(axis, x, title)

# %%
# If you know what kind of flower it was, say so: ``label`` restores with p(x | label). Wrong labels show what a label
# decides. Here it is little: what surrounds the box says as much.

labels = [None, "sunflowers", "daisy", "roses"]
figure, axes = plt.subplots(1, 1 + len(labels), figsize=(7, 1.7), layout="constrained")
show(axes[0], measurements["a hidden box"].y[0], "a hidden box")
for axis, label in zip(axes[1:], labels):
    result = genprior.restore(measurements["a hidden box"], prior=prior, label=label, n=1, seed=1, progress=False)
    show(axis, result.samples[0], label or "no label")

# %%
# Draws from the prior, each kind in a row, without guidance and with it. Guidance draws what is most typical of a kind.

draws = torch.cat([prior.given(k, w).sample(4, steps=25, seed=1) for k in prior.class_names for w in (1.0, 2.0)])
figure, axes = plt.subplots(5, 8, figsize=(8, 5.4), layout="constrained")
for axis, x, k in zip(axes.flat, draws, range(40)):
    show(axis, x, prior.class_names[k // 8] if k % 8 == 0 else "guidance 2" if k % 8 == 4 else "")
