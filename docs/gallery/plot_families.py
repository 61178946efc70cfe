"""
One digit, every family of priors
=================================

A digit is drawn from one prior, the diffusion, then blurred, made noisy, and restored with each family.
``sampler="auto"`` picks a sampler that suits the methods of the prior.
"""

import matplotlib.pyplot as plt

import genprior

# %%
# The digit is drawn from ``ddpm-mnist``, given the label 5: no data set is needed.

digit = genprior.load_prior("ddpm-mnist").given(5).sample(1, seed=1).clamp(0, 1)
measurement = genprior.degrade(digit, "gaussian-deblur", width=1.5, boundary="circular", noise=0.1, seed=0)

# %%
# The chains of the flow and the auto-encoder are shortened here, the chain of the GAN is not.

hmc = genprior.FisherHMC(steps=4, descend=50, burn_in=4, leapfrog=5, probes=4)
families = {
    "gaussian-mnist": "auto",
    "nf-mnist": hmc,
    "vae-mnist": hmc,
    "gan-mnist": "auto",
    "ddpm-mnist": "auto",
}

figure, axes = plt.subplots(len(families), 4, figsize=(6, 8), layout="constrained")
for row, (family, sampler) in zip(axes, families.items()):
    result = genprior.restore(measurement, prior=family, sampler=sampler, n=2, seed=0, progress=False)
    print(f"{family}: {type(result.sampler).__name__}, {result.network_evaluations} evaluations a draw")
    panels = {"measured": measurement.y[0], "drawn digit": digit[0]}
    panels = {**panels, **{f"{family}\nsample {k}": result.samples[k] for k in range(2)}}
    for axis, (title, x) in zip(row, panels.items()):
        axis.imshow(x[0], cmap="gray", vmin=0, vmax=1)
        axis.set_title(title, fontsize=9)
        axis.set_axis_off()

# %%
# The Gaussian has the covariance of digits but not their shape: its posterior is exact, its draws are smears. The flow,
# the auto-encoder and the diffusion find the digit. The GAN draws clean strokes, some of them far from the measurement:
# its chain stays around the mode where it began, here a wrong one. :doc:`/families` has figures.
