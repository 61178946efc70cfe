"""
Your own prior
==============

``prior=`` takes more than names: a law fitted to your images in a second, any denoiser as a function, or a class. Here
are the first two, on a texture, compared with the bundled prior of photographs.
"""

import matplotlib.pyplot as plt
import skimage
import torch
from skimage.metrics import peak_signal_noise_ratio

import genprior

# %%
# The images: a photograph of bricks. The prior learns from its left part; the right part is restored.

bricks = torch.from_numpy(skimage.img_as_float32(skimage.data.brick()))[None]
x = bricks[:, 200:264, 440:504]
corners = [(i, j) for i in range(0, 448, 32) for j in range(0, 320, 32)]
crops = torch.stack([bricks[:, i : i + 64, j : j + 64] for i, j in corners])

# %%
# A Gaussian with the mean and the spectrum of the crops, for images of any size. ``save_prior`` would write it to a
# folder, which ``restore(..., prior="folder")`` reads.

gaussian = genprior.GaussianField.fit(crops)

# %%
# Any denoiser is a prior: a function of a noisy image x_t = x + sigma n and of sigma that returns about E[x | x_t].
# This one is total variation, as a stand-in for your network. ``sigma_max`` states the highest noise that it knows.


def total_variation(x_t, sigma):
    def one(image, level):
        return torch.from_numpy(skimage.restoration.denoise_tv_chambolle(image.numpy(), weight=float(level)))

    levels = torch.as_tensor(sigma).expand(len(x_t), 1, 1, 1).flatten()
    return torch.stack([one(image, level) for image, level in zip(x_t, levels)])


denoiser = genprior.from_denoiser(total_variation, (1, None, None), sigma_max=1.0)

# %%
# The measurement: 70 % of the pixels are missing, the rest is noisy. Samplers see only the methods of a prior, so the
# same call takes each prior. ``"ddpm-photo"`` is one of colour photographs: ``restore`` gives it the grey image.

measurement = genprior.degrade(x, "inpaint", mask="random", fraction=0.7, noise=0.03, seed=0)
priors = {"total variation": denoiser, "ddpm-photo": "ddpm-photo", "Gaussian of bricks": gaussian}
results = {
    name: genprior.restore(measurement, prior=prior, n=2, seed=0, progress=False) for name, prior in priors.items()
}

# %%

figure, axes = plt.subplots(2, 4, figsize=(9, 4.8), layout="constrained")
axes[0, 0].imshow(measurement.y[0, 0], cmap="gray", vmin=0, vmax=1)
axes[0, 0].set_title("measured", fontsize=9)
axes[1, 0].imshow(x[0], cmap="gray", vmin=0, vmax=1)
axes[1, 0].set_title("photograph", fontsize=9)
for column, (name, result) in zip(axes.T[1:], results.items()):
    picture, sample = result.mean[0], result.samples[0, 0]
    column[0].imshow(picture, cmap="gray", vmin=0, vmax=1)
    column[0].set_title(f"{name}: picture", fontsize=9)
    column[1].imshow(sample, cmap="gray", vmin=0, vmax=1)
    column[1].set_title("one sample", fontsize=9)
    psnr = peak_signal_noise_ratio(x[0].numpy(), picture.numpy(), data_range=1)
    print(f"{name:18} {type(result.sampler).__name__:18} picture {psnr:.1f} dB")
for axis in axes.flat:
    axis.set_axis_off()

# %%
# The diffusion is ahead: it knows edges, where the Gaussian of bricks knows only their spectrum. ``auto`` chose the
# sampler by the methods of each prior. To train a diffusion on your own images, run ``genprior train ddpm --data photos
# --out runs/mine`` and pass ``prior="runs/mine/prior"``: see :doc:`/training`. :doc:`/priors` lists all kinds,
# among them models of diffusers, checkpoints and classes.
