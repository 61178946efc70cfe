"""Models of diffusers as priors: against diffusers' own steps, and against the posterior mean of Gaussian data."""

import builtins
import json
import math
import shutil
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from diffusers import (
    CogVideoXDDIMScheduler,
    DDIMScheduler,
    DDPMPipeline,
    DDPMScheduler,
    EDMEulerScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    IPNDMScheduler,
    LCMScheduler,
    ModelMixin,
    ScoreSdeVeScheduler,
    UNet2DConditionModel,
    UNet2DModel,
)
from diffusers.training_utils import EMAModel
from safetensors.torch import load_file, save_file
from torch import nn
from torch.optim.swa_utils import AveragedModel

import genprior
from genprior.checks import UnsupportedError
from genprior.priors import hub
from genprior.priors.base import supports
from genprior.priors.folder import read_card
from genprior.priors.foreign.diffusers import from_diffusers
from genprior.priors.foreign.diffusers_levels import HIGHEST
from genprior.priors.foreign.diffusers_pixels import DiffusersPrior
from genprior.priors.gaussian.gaussian import Gaussian

PREDICTIONS = ("epsilon", "v_prediction", "sample")
CHAINS = {
    "linear": {},
    "short": {"num_train_timesteps": 50, "beta_end": 0.2},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
    "latent": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "sigmoid": {"beta_schedule": "sigmoid"},
    "no signal": {"rescale_betas_zero_snr": True},
    "own": {"trained_betas": [1e-3, 2e-3, 0.01, 0.05, 0.3, 0.5, 0.9], "num_train_timesteps": 7},
}


def network(**arguments):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DModel(
            **{
                "sample_size": 8,
                "in_channels": 1,
                "out_channels": 1,
                "block_out_channels": (8, 16),
                "layers_per_block": 1,
                "norm_num_groups": 4,
                "down_block_types": ("DownBlock2D", "DownBlock2D"),
                "up_block_types": ("UpBlock2D", "UpBlock2D"),
                "add_attention": False,
                **arguments,
            }
        )
    return unet.eval().requires_grad_(False)


def images(*shape, seed=0, dtype=torch.float32):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


# ---- denoising ----


@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_denoising_is_what_the_scheduler_makes_of_the_network(prediction, chain):
    """At the levels of the chain, against `pred_original_sample` of diffusers, by a network of random weights.

    Both are float32: u_hat = (z - sqrt(1 - alpha_bar) eps) / sqrt(alpha_bar) loses a factor s = sigma / 0.5.
    """
    scheduler = DDPMScheduler(prediction_type=prediction, clip_sample=False, **CHAINS[chain])
    unet = network(out_channels=2)  # the second half a learned variance
    prior = DiffusersPrior(unet, scheduler)
    scheduler.variance_type = "learned_range"
    alpha_bars = scheduler.alphas_cumprod.double().tolist()
    last = len(prior.levels.alpha_bars) - 1
    for t in sorted({0, 1, last // 3, last - 1, last}):
        alpha_bar = alpha_bars[t]
        s = math.sqrt(1 / alpha_bar - 1)
        u_t = (2 * images(2, 1, 8, 8) - 1) + s * (2 * images(2, 1, 8, 8, seed=1) - 1)
        z = math.sqrt(alpha_bar) * u_t
        found = 2 * prior.denoise(0.5 + 0.5 * u_t, s / 2) - 1
        wanted = scheduler.step(unet(z, t).sample, t, z).pred_original_sample
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3 * max(1.0, s))


class Optimal(nn.Module):
    """The network that knows the Gaussian data: its answer at z and t is the posterior mean of what it predicts."""

    def __init__(self, truth, scheduler, prediction):
        super().__init__()
        alpha_bars = scheduler.alphas_cumprod.double().numpy()
        self.log_s = 0.5 * np.log((1 - alpha_bars) / alpha_bars)
        self.truth, self.prediction = truth, prediction

    def forward(self, z, t):
        log_s = np.interp(t.double().numpy(), np.arange(len(self.log_s)), self.log_s)
        s = torch.from_numpy(np.exp(log_s)).reshape(-1, 1, 1, 1)
        signal, noise = 1 / (1 + s**2).sqrt(), s / (1 + s**2).sqrt()
        u_t = z / signal
        u_hat = 2 * self.truth.denoise((u_t + 1) / 2, s / 2) - 1
        eps = (u_t - u_hat) / s
        answer = {"epsilon": eps, "v_prediction": signal * eps - noise * u_hat, "sample": u_hat}[self.prediction]
        return SimpleNamespace(sample=answer)


def gaussian(noise=0.0):
    i = torch.arange(16, dtype=torch.float64)
    mean = images(1, 4, 4, seed=3, dtype=torch.float64)
    return Gaussian(mean, 0.04 * torch.exp(-(i[:, None] - i).abs() / 3) + noise**2 * torch.eye(16))


def optimal(prediction, **chain):
    scheduler = DDPMScheduler(prediction_type=prediction, **chain)
    prior, truth = DiffusersPrior(network(sample_size=4), scheduler), gaussian()
    prior.unet = Optimal(truth, scheduler, prediction)
    return prior.double(), truth


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_denoiser_of_gaussian_data_is_the_posterior_mean(prediction):
    """At levels of the chain and between them; the table of ln s is float32, of relative error 1e-6 in s here.

    Predicting eps, u_hat = u_t - s eps multiplies that by s, to 160.
    """
    prior, truth = optimal(prediction)
    x = truth.sample(6, seed=5)
    for sigma in (prior.sigma_min, 0.0123, 0.1, 0.5, 3.21, prior.sigma_max):
        x_t = x + sigma * images(*x.shape, seed=1, dtype=torch.float64)
        torch.testing.assert_close(prior.denoise(x_t, sigma), truth.denoise(x_t, sigma), rtol=0, atol=1e-4)
    levels = torch.tensor([0.006, 0.02, 0.3, 1.0, 9.0, 70.0], dtype=torch.float64).reshape(-1, 1, 1, 1)
    x_t = x + levels * images(*x.shape, seed=2, dtype=torch.float64)
    torch.testing.assert_close(prior.denoise(x_t, levels), truth.denoise(x_t, levels), rtol=0, atol=1e-4)


def test_levels_are_those_of_the_chain_in_units_of_x():
    """Those of the scheduler's float32 product, to the last digit: 1 - alpha_bar = 1e-4 has 3 digits there, and the
    network was trained with these."""
    scheduler = DDPMScheduler()
    prior = DiffusersPrior(network(), scheduler)
    first = float(scheduler.alphas_cumprod[0])
    assert prior.sigma_min == pytest.approx(0.5 * math.sqrt((1 - first) / first), rel=1e-12)
    assert prior.sigma_min == pytest.approx(0.5 * math.sqrt(1e-4 / (1 - 1e-4)), rel=0.5 * 2**-24 / 1e-4)
    assert prior.sigma_max == pytest.approx(0.5 / math.sqrt(4.04e-5), rel=1e-2)
    assert prior.image_shape == (1, 8, 8)
    for chain in ("cosine", "no signal"):
        prior = DiffusersPrior(network(), DDPMScheduler(**CHAINS[chain]))
        assert HIGHEST / 3 < prior.sigma_max <= HIGHEST


def test_timesteps_are_those_of_the_chain_and_between_them():
    prior = DiffusersPrior(network(), DDPMScheduler())
    s = prior.levels.log_levels.double().exp().reshape(-1, 1, 1, 1)
    torch.testing.assert_close(prior.levels.timestep(s), torch.arange(1000.0).double(), rtol=0, atol=0.01)
    between = (s[400] * s[401]).sqrt().reshape(1, 1, 1, 1)
    assert float(prior.levels.timestep(between)) == pytest.approx(400.5, abs=0.01)
    beyond = torch.tensor([0.0, 1e-9, 1e9]).reshape(-1, 1, 1, 1)
    assert prior.levels.timestep(beyond).tolist() == [0, 0, 999]
    learned = DiffusersPrior(network(time_embedding_type="learned", num_train_timesteps=1000), DDPMScheduler())
    assert learned.levels.timestep(between).item() in (400, 401)
    assert learned.denoise(images(1, 1, 8, 8), 0.1).isfinite().all()


def test_chain_is_the_alphas_cumprod_of_the_scheduler():
    """Whatever its betas are: CogVideoX's shifts alphas_cumprod away from their product, Euler's ends by its own."""
    shifted = CogVideoXDDIMScheduler()
    betas_say = torch.cumprod(1 - shifted.betas.double(), 0)
    assert (shifted.alphas_cumprod - betas_say).abs().max() > 0.01
    for scheduler in (shifted, EulerDiscreteScheduler(rescale_betas_zero_snr=True)):
        prior = DiffusersPrior(network(), scheduler)
        chain = scheduler.alphas_cumprod.tolist()
        wanted = [a for a in chain if 0.5 * math.sqrt(1 / a - 1) <= HIGHEST] if min(chain) > 0 else chain[:-1]
        assert prior.levels.alpha_bars == wanted


def test_steps_without_noise_have_no_level_and_do_not_count():
    scheduler = DDPMScheduler(trained_betas=[0.0, 0.0, 0.1, 0.2, 0.0, 0.3], num_train_timesteps=6)
    prior = DiffusersPrior(network(), scheduler)
    assert prior.levels.alpha_bars == pytest.approx([0.9, 0.72, 0.504], rel=1e-6)
    assert prior.levels.timesteps.tolist() == [2, 3, 5]
    s = torch.tensor([math.sqrt(1 / a - 1) for a in (0.9, 0.72, 0.504)]).reshape(3, 1, 1, 1)
    torch.testing.assert_close(prior.levels.timestep(s), torch.tensor([2.0, 3.0, 5.0]))
    assert prior.sample(2, steps=2).isfinite().all()


class Answering(nn.Module):
    """The network of Gaussian data whose answer at z and t is what `answer` makes of (u_t, s, E[u | u_t])."""

    def __init__(self, truth, heard, answer):
        super().__init__()
        self.truth, self.heard, self.answer = truth, heard, answer

    def forward(self, z, t):
        u_t, s = self.heard(z, t.reshape(-1, 1, 1, 1))
        return SimpleNamespace(sample=self.answer(u_t, s, 2 * self.truth.denoise((u_t + 1) / 2, s / 2) - 1))


def edm_heard(z, t):
    """t = ln s / 4, z = u_t / sqrt(s^2 + sd^2), sd = 0.5."""
    s = (4 * t).exp()
    return z * (s**2 + 0.25).sqrt(), s


def edm_answer(sign):
    """F of u_hat = sd^2 / (s^2 + sd^2) u_t + sign s sd / sqrt(s^2 + sd^2) F."""
    return lambda u_t, s, u_hat: sign * (u_hat - 0.25 / (s**2 + 0.25) * u_t) * (s**2 + 0.25).sqrt() / (0.5 * s)


def flow_heard(z, t):
    """t = 1000 a, z = (1 - a) u + a n = (1 - a) u_t with s = a / (1 - a)."""
    a = t / 1000
    return z / (1 - a), a / (1 - a)


def score_heard(z, t):
    """z = x_t = (1 + u_t) / 2, t = sigma = s / 2."""
    return 2 * z - 1, 2 * t


def score_answer(u_t, s, u_hat):
    """The score of x_t, (x_hat - x_t) / sigma^2."""
    return 2 * (u_hat - u_t) / s**2


def flow_answer(u_t, s, u_hat):
    """E[n - u | u_t]."""
    return (u_t - u_hat) / s - u_hat


@pytest.mark.parametrize(
    ("scheduler", "heard", "answer", "lowest", "highest"),
    [
        (EDMEulerScheduler(), edm_heard, edm_answer(1), 0.001, 40.0),
        (EDMEulerScheduler(prediction_type="v_prediction"), edm_heard, edm_answer(-1), 0.001, 40.0),
        # a = k / 1000; of a = 0.994 the level is 82.8
        (FlowMatchEulerDiscreteScheduler(), flow_heard, flow_answer, 0.0005 / 0.999, 0.5 * 0.993 / 0.007),
        # moves a = 1 / 1000 to 3 / 1002
        (FlowMatchEulerDiscreteScheduler(shift=3.0), flow_heard, flow_answer, 0.5 * 3 / 999, None),
        (ScoreSdeVeScheduler(sigma_max=50.0), score_heard, score_answer, 0.01, 50.0),
    ],
    ids=["edm", "edm v", "flow", "flow shifted", "score-SDE-VE"],
)
def test_networks_of_other_schedulers_give_the_posterior_mean_of_gaussian_data(
    scheduler, heard, answer, lowest, highest
):
    """In float64, of which flow matching loses 1 / (1 - a) = 160, and t = a T is one number for a."""
    scheduler.set_timesteps(3)  # as a pipeline has left it
    prior, truth = DiffusersPrior(network(sample_size=4), scheduler), gaussian()
    prior.unet = Answering(truth, heard, answer)
    prior.double()
    assert prior.sigma_min == pytest.approx(lowest, rel=1e-4)
    assert highest is None or prior.sigma_max == pytest.approx(highest, rel=1e-4)
    x = truth.sample(4, seed=5)
    for sigma in (prior.sigma_min, 0.1, 0.5, 3.21, prior.sigma_max):
        x_t = x + sigma * images(*x.shape, seed=1, dtype=torch.float64)
        torch.testing.assert_close(prior.denoise(x_t, sigma), truth.denoise(x_t, sigma), rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "scheduler",
    [
        DDIMScheduler(clip_sample=False, timestep_spacing="trailing"),
        EDMEulerScheduler(),
        EDMEulerScheduler(prediction_type="v_prediction", sigma_data=0.7),
        FlowMatchEulerDiscreteScheduler(shift=2.0),
    ],
    ids=["ddim", "edm", "edm v", "flow"],
)
def test_last_step_of_the_scheduler_from_any_level_is_the_denoiser(scheduler):
    """diffusers' own step to no noise, with a network of random weights; both are float32.

    u_hat is that of a level near s, as diffusers rounds its own to float32: 1e-6 of u_t, and of eps times s.
    """
    unet = network()
    prior = DiffusersPrior(unet, scheduler)
    for start in (4, 2, 1):  # the last of so many steps: a different level each
        scheduler.set_timesteps(start)
        t = scheduler.timesteps[-1]
        if isinstance(scheduler, DDIMScheduler):
            alpha_bar = float(scheduler.alphas_cumprod[t])
            s, signal = math.sqrt(1 / alpha_bar - 1), math.sqrt(alpha_bar)
        else:
            s = float(scheduler.sigmas[start - 1])
            signal = 1.0
            if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
                if s == 1:
                    continue  # nothing of the image is left
                s, signal = s / (1 - s), 1 - s
        u_t = (2 * images(2, 1, 8, 8) - 1) + s * (2 * images(2, 1, 8, 8, seed=1) - 1)
        z = signal * u_t
        seen = scheduler.scale_model_input(z, t) if hasattr(scheduler, "scale_model_input") else z
        wanted = scheduler.step(unet(seen, t).sample, t, z).prev_sample
        found = 2 * prior.denoise(0.5 + 0.5 * u_t, s / 2) - 1
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4 * max(1.0, s))


def test_network_of_scores_is_told_its_noise():
    """x_hat = x_t + sigma^2 times the answer of a network of Fourier features, whose images are on [0, 1]."""
    unet = network(time_embedding_type="fourier")
    prior = from_diffusers(unet, ScoreSdeVeScheduler())
    x = images(2, 1, 8, 8)
    for sigma in (0.01, 0.3, 20.0):
        x_t = x + sigma * images(2, 1, 8, 8, seed=1)
        wanted = x_t + sigma**2 * unet(x_t, torch.full((2,), sigma)).sample
        torch.testing.assert_close(prior.denoise(x_t, sigma), wanted, rtol=1e-4, atol=1e-4 * max(1.0, sigma))


def test_sizes_that_the_levels_do_not_divide_are_padded():
    unet = network(sample_size=None)
    prior = DiffusersPrior(unet, DDPMScheduler())
    assert prior.image_shape == (1, None, None)
    x = images(1, 1, 6, 5)
    assert prior.denoise(x, 0.1).shape == x.shape
    padded = torch.nn.functional.pad(x, (0, 1, 0, 0), mode="replicate")
    torch.testing.assert_close(prior.denoise(x, 0.1), prior.denoise(padded, 0.1)[..., :5])
    assert DiffusersPrior(network(), DDPMScheduler(), (1, None, None)).sized(16, 8).image_shape == (1, 16, 8)
    with pytest.raises(ValueError, match="images have 1 channels"):
        DiffusersPrior(network(), DDPMScheduler(), (3, 8, 8))


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_samples_of_gaussian_data_have_its_mean_and_variance(prediction):
    """400 draws: means within 4 sd / 20, the mean of 16 variances within 4 sqrt(2 / 400) and 3 % for the few steps."""
    prior, truth = optimal(prediction)
    prior.unet.weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))  # says where and in which precision to draw
    x = prior.sample(400, steps=100)
    assert float((x.mean(0) - truth.mean).abs().max()) < 4 * 0.2 / 20
    assert float(x.var(0).mean()) == pytest.approx(0.04, rel=4 * math.sqrt(2 / 400) + 0.03)


def test_density_of_gaussian_data_is_within_its_stated_error():
    prior, _ = optimal("v_prediction")
    prior.spread = 0.2  # the rest, the law of x_T, is below 16 spread^2 / sigma_max^2 = 1e-4
    noisy = gaussian(noise=prior.sigma_min)
    x = noisy.sample(4, seed=2)
    found = prior.flow_log_prob(x, steps=50, probes=8)
    assert ((found.value - noisy.log_prob(x)).abs() < 5 * found.probe_error + found.step_error + 3e-4).all()
    assert supports(prior, "flow_log_prob")


# ---- folders ----


@pytest.fixture
def folder(tmp_path):
    pipeline = DDPMPipeline(network(), DDPMScheduler(prediction_type="v_prediction", beta_schedule="squaredcos_cap_v2"))
    pipeline.save_pretrained(tmp_path / "ddpm")
    return tmp_path / "ddpm"


def flat(folder):
    """All in one folder, as google/ddpm-cifar10-32 and its like are."""
    for part in ("unet", "scheduler"):
        for file in (folder / part).iterdir():
            file.rename(folder / file.name)
        (folder / part).rmdir()
    return folder


@pytest.mark.parametrize("layout", [lambda folder: folder, flat], ids=["parts", "flat"])
def test_restoring_takes_a_folder(folder, layout):
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    prior = genprior.load_prior(layout(folder))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert (prior.levels.prediction, prior.image_shape) == ("v_prediction", (1, 8, 8))
    prior.autocast = None
    scheduler = DDPMScheduler(prediction_type="v_prediction", beta_schedule="squaredcos_cap_v2")
    wanted = DiffusersPrior(network(), scheduler)
    x = images(2, 1, 8, 8)
    torch.testing.assert_close(prior.denoise(x, 0.3), wanted.denoise(x, 0.3))
    assert not any(p.requires_grad for p in prior.parameters())
    options = {"n": 1, "noise": 0.1, "seed": 0, "steps": 3, "progress": False}
    found = genprior.restore(x[0], "denoise", prior=folder, **options)
    assert str(found.sampler).startswith("DiffPIR")
    wanted = genprior.restore(x[0], "denoise", prior=prior, **options)
    # bfloat16 in the network, where the device is fast in it
    torch.testing.assert_close(found.samples, wanted.samples, rtol=0, atol=0.05)
    assert len(read_card(folder)["sha256"]) == 64


def test_restoring_reads_a_folder_again_that_was_saved_again(folder):
    options = {"prior": str(folder), "n": 1, "noise": 0.1, "seed": 0, "steps": 2, "progress": False}
    first = genprior.restore(images(1, 8, 8), "denoise", **options).samples
    unet = network()
    unet.conv_out.bias.data.add_(1.0)
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(folder)
    assert (genprior.restore(images(1, 8, 8), "denoise", **options).samples - first).abs().max() > 1e-3


def test_restoring_takes_a_pipeline():
    unet, scheduler = network(), DDIMScheduler()
    prior = from_diffusers(DDPMPipeline(unet, scheduler))
    assert prior.unet is unet
    options = {"n": 1, "noise": 0.1, "seed": 0, "steps": 3, "progress": False}
    x = images(1, 8, 8)
    pipeline, given = DDPMPipeline(unet, scheduler), from_diffusers(unet, scheduler)
    found, wanted = (genprior.restore(x, "denoise", prior=p, **options).samples for p in (pipeline, given))
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


class OwnUNet(UNet2DModel):
    pass


class OwnPipeline(DDPMPipeline):
    """As diffusers loads custom pipelines: of a module that is not its own."""


class Renamed(DDPMPipeline):
    """One that calls its parts otherwise."""

    def __init__(self, net, noise):
        super(DDPMPipeline, self).__init__()
        self.register_modules(net=net, noise=noise)


def compiled(network):
    return torch.compile(network, backend="eager")


def own(unet):
    other = OwnUNet.from_config(unet.config)
    other.load_state_dict(unet.state_dict())
    return other.eval()


def moving_average(unet):
    ema = EMAModel(unet.parameters(), model_cls=UNet2DModel, model_config=unet.config)
    for p in unet.parameters():  # the average, not what has been learned since, is the model
        p.data.add_(1.0)
    return ema


def averaged(unet):
    average = AveragedModel(unet)
    for p in unet.parameters():
        p.data.add_(1.0)
    return average


S = DDPMScheduler()
WRAPPED = {
    "subclass of the pipeline": lambda unet: OwnPipeline(unet, S),
    "other names": lambda unet: Renamed(unet, S),
    "compiled in the pipeline": lambda unet: DDPMPipeline(compiled(unet), S),
    "subclass of the network": lambda unet: from_diffusers(own(unet), S),
    "several devices": lambda unet: from_diffusers(nn.DataParallel(unet), S),
    "several devices in the pipeline": lambda unet: DDPMPipeline(nn.DataParallel(unet), S),
    "compiled for several devices": lambda unet: from_diffusers(compiled(nn.DataParallel(compiled(unet))), S),
    "moving average": lambda unet: from_diffusers(moving_average(unet), S),
    "moving average of torch": lambda unet: from_diffusers(averaged(unet), S),
    "prepared by Accelerate": lambda unet: from_diffusers(Accelerator(cpu=True).prepare_model(unet), S),
    "compiled prior": lambda unet: compiled(from_diffusers(unet, S)),
}


@pytest.mark.parametrize("wrapped", WRAPPED)
def test_wrapped_networks_are_what_they_wrap(wrapped):
    options = {"n": 1, "noise": 0.1, "seed": 0, "steps": 2, "progress": False}
    x = images(1, 8, 8)
    found = genprior.restore(x, "denoise", prior=WRAPPED[wrapped](network()), **options)
    wanted = genprior.restore(x, "denoise", prior=from_diffusers(network(), S), **options)
    torch.testing.assert_close(found.samples, wanted.samples, rtol=0, atol=0)


def test_compiled_network_stays_compiled_and_one_of_several_devices_does_not():
    unet = network()
    fast = compiled(unet)
    assert from_diffusers(fast, S).unet is fast
    assert from_diffusers(nn.DataParallel(fast), S).unet is fast
    assert from_diffusers(compiled(nn.DataParallel(unet)), S).unet is unet


def test_moving_average_that_does_not_know_its_network_says_what_to_do():
    def restore(ema):
        return genprior.restore(images(1, 8, 8), "denoise", prior=ema, noise=0.1)

    for take in (restore, lambda ema: from_diffusers(ema, S)):
        with pytest.raises(ValueError, match=r"ema.copy_to\(unet.parameters\(\)\)"):
            take(EMAModel(network().parameters()))


@pytest.mark.parametrize(("dtype", "digits"), [(torch.float16, 11), (torch.bfloat16, 8), (torch.float64, 24)])
def test_network_computes_in_its_own_precision(dtype, digits):
    """What samplers see stays float32. Every one of some 20 layers rounds to `digits` binary digits, of numbers whose
    root mean square is about 1: 20 * 2^-digits in eps, which sigma = 0.1 multiplies."""
    unet = network(in_channels=3, out_channels=3)
    x = images(2, 3, 8, 8)
    wanted = from_diffusers(unet, S).denoise(x, 0.1)
    prior = from_diffusers(network(in_channels=3, out_channels=3).to(dtype), S)
    found = prior.denoise(x, 0.1)
    assert found.dtype == torch.float32
    assert next(prior.unet.parameters()).dtype == dtype
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.1 * 20 * 2.0**-digits)
    pipeline = DDPMPipeline(prior.unet, S)
    restored = genprior.restore(x[0], "denoise", prior=pipeline, n=1, noise=0.1, seed=0, steps=2, progress=False)
    assert restored.samples.dtype == torch.float32
    assert prior.sample(1, steps=2).dtype == torch.promote_types(dtype, torch.float32)
    fast = from_diffusers(compiled(prior.unet), S)
    torch.testing.assert_close(fast.denoise(x, 0.1), found, rtol=0, atol=0.1 * 20 * 2.0**-digits)
    # in half precision only by what its weights lost
    prior.autocast = None
    rounded = from_diffusers(network(in_channels=3, out_channels=3).to(dtype).to(prior.sample(1, steps=2).dtype), S)
    assert torch.equal(prior.denoise(x, 0.1), rounded.denoise(x, 0.1))


def test_network_alone_wants_its_scheduler(tmp_path):
    unet = network()
    unet.save_pretrained(tmp_path / "unet-alone")
    with pytest.raises(ValueError, match=r"no scheduler_config.json .*from_diffusers\(folder, scheduler="):
        genprior.restore(images(1, 8, 8), "denoise", prior=tmp_path / "unet-alone", noise=0.1)
    with pytest.raises(ValueError, match=r"from_diffusers\(unet, scheduler\)"):
        genprior.restore(images(1, 8, 8), "denoise", prior=unet, noise=0.1)
    x = images(1, 1, 8, 8)
    found = from_diffusers(tmp_path / "unet-alone", DDPMScheduler()).denoise(x, 0.1)
    torch.testing.assert_close(found, from_diffusers(unet, DDPMScheduler()).denoise(x, 0.1))


def test_weights_of_half_precision_alone_are_read(folder, tmp_path):
    wanted = from_diffusers(folder)
    DDPMPipeline.from_pretrained(folder).to(torch.float16).save_pretrained(tmp_path / "half", variant="fp16")
    found = from_diffusers(tmp_path / "half")
    assert next(found.unet.parameters()).dtype == torch.float16
    x = images(1, 1, 8, 8)
    torch.testing.assert_close(found.denoise(x, 0.1), wanted.denoise(x, 0.1), rtol=0, atol=1e-3)
    # of weights rounded once, in float32
    rounded = network().to(torch.float16).float()
    assert torch.equal(found.denoise(x, 0.1), from_diffusers(rounded, full_scheduler()).denoise(x, 0.1))
    assert torch.equal(found.sample(1, steps=2), from_diffusers(rounded, full_scheduler()).sample(1, steps=2))
    assert read_card(tmp_path / "half")["sha256"] != read_card(folder)["sha256"]
    both = tmp_path / "half" / "unet" / "diffusion_pytorch_model.other.safetensors"
    both.write_bytes(b"")
    with pytest.raises(ValueError, match=r"only .*fp16.safetensors, .*other.safetensors"):
        from_diffusers(tmp_path / "half")


def test_variant_is_the_one_asked_for(folder):
    """Of a folder that has several; by default it is that of full precision."""
    halved = network()
    halved.conv_out.bias.data.add_(1.0)
    halved.to(torch.float16).save_pretrained(folder / "unet", variant="fp16")
    x = images(1, 1, 8, 8)
    full, half = from_diffusers(folder), from_diffusers(folder, variant="fp16")
    assert (full.denoise(x, 0.1) - half.denoise(x, 0.1)).abs().max() > 1e-2
    torch.testing.assert_close(full.denoise(x, 0.1), from_diffusers(network(), full_scheduler()).denoise(x, 0.1))
    with pytest.raises(ValueError, match=r"no weights of the variant 'ema', only .*fp16.safetensors"):
        from_diffusers(folder, variant="ema")
    with pytest.raises(ValueError, match="no folder was given"):
        from_diffusers(network(), S, variant="fp16")


def full_scheduler():
    return DDPMScheduler(prediction_type="v_prediction", beta_schedule="squaredcos_cap_v2")


def test_pickled_weights_are_read_where_there_are_no_others(folder):
    wanted = from_diffusers(folder)
    pickled(folder, network().state_dict())
    x = images(1, 1, 8, 8)
    torch.testing.assert_close(from_diffusers(folder).denoise(x, 0.1), wanted.denoise(x, 0.1))
    assert len(read_card(folder)["sha256"]) == 64
    assert genprior.load_prior(folder).image_shape == (1, 8, 8)


def test_folder_of_a_moving_average_is_that_of_a_network(tmp_path):
    """`unet_ema` of diffusers' training scripts, whose config.json holds more than the network's arguments."""
    unet = network()
    moving_average(unet).save_pretrained(tmp_path / "unet_ema")
    x = images(1, 1, 8, 8)
    found = from_diffusers(tmp_path / "unet_ema", S).denoise(x, 0.1)
    torch.testing.assert_close(found, from_diffusers(network(), S).denoise(x, 0.1))


# ---- what is no prior ----


def edit(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
ANOTHER = r"model.safetensors is not of the UNet2DModel that the config.json beside it describes"
BROKEN = {
    "class-conditional": (
        lambda f: edit(f / "unet" / "config.json", num_class_embeds=10),
        (UnsupportedError, "wants a class label"),
    ),
    "autoencoder missing": (
        lambda f: edit(f / "model_index.json", vqvae=["diffusers", "VQModel"]),
        (ValueError, r"holds no vqvae/config.json of an autoencoder"),
    ),
    "other autoencoder": (
        lambda f: edit(f / "model_index.json", vae=["diffusers", "AutoencoderTiny"]),
        (UnsupportedError, r"vae \(AutoencoderTiny\).*an autoencoder too \(VQModel or AutoencoderKL\)"),
    ),
    "text": (
        lambda f: edit(f / "model_index.json", text_encoder=["transformers", "CLIPTextModel"]),
        (UnsupportedError, r"text_encoder \(CLIPTextModel\)"),
    ),
    "other network": (
        lambda f: edit(f / "model_index.json", unet=["diffusers", "UNet2DConditionModel"]),
        (UnsupportedError, "The network is a UNet2DConditionModel"),
    ),
    "other channels": (
        lambda f: edit(f / "unet" / "config.json", out_channels=3),
        (UnsupportedError, "1 channels in and 3 out"),
    ),
    "fourier": (
        lambda f: network(time_embedding_type="fourier").save_pretrained(f / "unet"),
        (UnsupportedError, "told its noise as such.*DDPMScheduler, is none of such networks"),
    ),
    "other scheduler": (
        lambda f: IPNDMScheduler().save_pretrained(f / "scheduler"),
        (UnsupportedError, "IPNDMScheduler has no alphas_cumprod"),
    ),
    "flow counted from noise": (
        lambda f: FlowMatchEulerDiscreteScheduler(invert_sigmas=True).save_pretrained(f / "scheduler"),
        (UnsupportedError, "counts its path from noise to data.*genprior.from_velocity"),
    ),
    "consistency of eps": (
        lambda f: LCMScheduler().save_pretrained(f / "scheduler"),
        (UnsupportedError, "LCMScheduler is of consistency models"),
    ),
    "unknown scheduler": (
        lambda f: edit(f / "scheduler" / "scheduler_config.json", _class_name="MyScheduler"),
        (ValueError, "'MyScheduler', which diffusers does not have"),
    ),
    "prediction": (
        lambda f: edit(f / "scheduler" / "scheduler_config.json", prediction_type="flow_prediction"),
        (UnsupportedError, "predicts 'flow_prediction'"),
    ),
    "no scheduler": (
        lambda f: (f / "scheduler" / "scheduler_config.json").unlink(),
        (ValueError, "no scheduler_config.json"),
    ),
    "no word of its class": (
        lambda f: (f / "unet" / "config.json").write_text('{"format": 1}'),
        (ValueError, r"config\.json does not say of what class"),
    ),
    "no word of its parts": (
        lambda f: (f / "model_index.json").write_text("{"),
        (ValueError, r"holds no model_index\.json of a pipeline that can be read"),
    ),
    "no configuration": (lambda f: (f / "unet" / "config.json").write_text("{"), (ValueError, "no config.json")),
    "no weights": (lambda f: (f / WEIGHTS).unlink(), (ValueError, "the only weights that are read")),
    "half the weights": (
        lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-100]),
        (ValueError, r"unet/diffusion_pytorch_model.safetensors is no whole \.safetensors file, cut short"),
    ),
    "other weights": (
        lambda f: edit(f / "unet" / "config.json", block_out_channels=[16, 16]),
        (ValueError, rf"{ANOTHER}: it also has .*conv_shortcut.bias"),
    ),
    "deeper network": (
        lambda f: edit(f / "unet" / "config.json", layers_per_block=2),
        (ValueError, f"{ANOTHER}: it lacks down_blocks.0.resnets.1"),
    ),
    "weights missing": (
        lambda f: rename(f / WEIGHTS, "conv_out.bias", None),
        (ValueError, rf"{ANOTHER}: it lacks conv_out.bias\."),
    ),
    "weights too many": (
        lambda f: rename(f / WEIGHTS, None, "class_embedding.weight"),
        (ValueError, f"{ANOTHER}: it also has class_embedding.weight"),
    ),
    "weights of a wrong shape": (
        lambda f: (
            network(norm_num_groups=2, in_channels=2, out_channels=2).save_pretrained(f / "other")
            or shutil.copy(f / "other" / WEIGHTS.split("/")[1], f / WEIGHTS)
        ),
        (ValueError, f"{ANOTHER}: it has other shapes of conv_in.weight"),
    ),
    "pickle that runs code": (
        lambda f: pickled(f, Bomb()),
        (ValueError, r"model.bin holds \w*\.?exec, which is no tensor: opening it would run code"),
    ),
    "half a pickle": (
        lambda f: pickled(f, network().state_dict(), -100),
        (ValueError, r"diffusion_pytorch_model.bin is cut short"),
    ),
    "text in the place of a pickle": (
        lambda f: pickled(f, None) or (f / PICKLE).write_text("<html>Not found</html>"),
        (ValueError, r"diffusion_pytorch_model.bin is no file that torch.save wrote"),
    ),
    "what git has where it keeps large files elsewhere": (
        lambda f: (f / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3"),
        (ValueError, r"model.safetensors only says where .* `git lfs pull`"),
    ),
    "values that are none": (
        lambda f: rename(f / WEIGHTS, "conv_out.bias", "conv_out.bias", torch.tensor([math.nan])),
        (ValueError, r"damaged: there are values that are no finite numbers in conv_out\.bias"),
    ),
    "arguments of no network": (
        lambda f: edit(f / "unet" / "config.json", down_block_types=["DownBlock", "DownBlock2D"]),
        (ValueError, r"The config.json in .*unet makes no UNet2DModel: DownBlock does not exist"),
    ),
}


def rename(path, without, beside, tensor=torch.zeros(2)):  # noqa: B008
    """The weights without one of them, or with another of that name."""
    weights = load_file(path)
    save_file({key: t for key, t in weights.items() if key != without} | ({beside: tensor} if beside else {}), path)


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('code from the folder was run')",)


PICKLE = WEIGHTS.replace("safetensors", "bin")


def pickled(folder, what, end=None):
    """The folder's weights replaced by a pickle, or by the beginning of one."""
    (folder / WEIGHTS).unlink()
    torch.save(what, folder / PICKLE)
    (folder / PICKLE).write_bytes((folder / PICKLE).read_bytes()[:end])


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_no_prior_is_one_clear_error(name, folder):
    damage, (kind, message) = BROKEN[name]
    damage(folder)
    with pytest.raises(kind, match=message):
        genprior.restore(images(1, 8, 8), "denoise", prior=str(folder), noise=0.1)


def test_folder_of_a_class_that_is_not_of_diffusers_says_how_to_give_it(folder):
    for path in (folder / "model_index.json", folder / "unet" / "config.json"):
        edit(path, **({"unet": ["mine", "OwnUNet"]} if path.name == "model_index.json" else {"_class_name": "OwnUNet"}))
    with pytest.raises(UnsupportedError, match=r"from_diffusers\(OwnUNet.from_pretrained\(folder\), scheduler\)"):
        from_diffusers(folder)


NO_LEVELS = {
    "no noise": DDPMScheduler(trained_betas=[0.0] * 4, num_train_timesteps=4),
    "one level": DDPMScheduler(trained_betas=[0.5, 0.0], num_train_timesteps=2),
    "rising": DDPMScheduler(trained_betas=[0.5, -0.5], num_train_timesteps=2),
    "not finite": DDPMScheduler(trained_betas=[0.5, math.nan], num_train_timesteps=2),
}


@pytest.mark.parametrize("name", NO_LEVELS)
def test_numbers_that_are_no_levels_are_refused(name):
    with pytest.raises(ValueError, match=r"alphas_cumprod of DDPMScheduler (are no chain|have no two levels)"):
        from_diffusers(network(), NO_LEVELS[name])


def test_betas_that_are_no_chain_are_not_taken_for_one():
    """IPNDM's betas are squared noises."""
    with pytest.raises(UnsupportedError, match="IPNDMScheduler has no alphas_cumprod"):
        from_diffusers(network(), IPNDMScheduler())
    with pytest.raises(UnsupportedError, match="learned timesteps only"):
        from_diffusers(network(time_embedding_type="learned", num_train_timesteps=1000), EDMEulerScheduler())


def test_denoiser_that_only_inherits_from_diffusers_is_a_denoiser():
    """With its `save_pretrained`, which is all it wants of it."""

    class Mine(ModelMixin):
        def forward(self, x_t, sigma):
            return 0.5 + (x_t - 0.5) / (1 + 16 * sigma**2)

    found = genprior.restore(images(1, 8, 8), "denoise", prior=Mine(), n=1, noise=0.1, steps=2, seed=0, progress=False)
    assert found.prior.capabilities == {"denoise"}


def test_network_of_text_to_image_is_refused():
    class Other(UNet2DConditionModel):
        def __init__(self):
            nn.Module.__init__(self)
            self._internal_dict = {"in_channels": 4, "out_channels": 4, "sample_size": 8}

    with pytest.raises(UnsupportedError, match="The network is a Other"):
        from_diffusers(Other(), DDPMScheduler())


def test_folder_that_is_not_there_is_said_to_be_missing():
    with pytest.raises(ValueError, match=r"There is no folder someone/nothing.*load_prior"):
        from_diffusers("someone/nothing")


def test_missing_diffusers_says_what_to_install(folder, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name.split(".")[0] == "diffusers":
            raise ImportError("No module named 'diffusers'")
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UnsupportedError, match=r'pip install "genprior\[hub\]"'):
        genprior.restore(images(1, 8, 8), "denoise", prior=folder, noise=0.1)


# ---- the Hub ----


@pytest.fixture
def on_the_hub(folder, tmp_path, monkeypatch):
    """`snapshot_download` from a folder, as the Hub answers: only what the patterns name. What was asked for."""
    asked = []

    def snapshot_download(name, *, revision, allow_patterns):
        there = tmp_path / "cache"
        for file in folder.rglob("*"):
            path = file.relative_to(folder)
            if file.is_file() and any(path.match(p) and len(path.parts) == p.count("/") + 1 for p in allow_patterns):
                (there / path).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, there / path)
                asked.append(path.as_posix())
        return str(there)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return asked


def test_model_of_the_hub_is_a_prior(folder, on_the_hub):
    prior = genprior.load_prior("someone/ddpm")
    x = images(1, 1, 8, 8)
    prior.autocast = None
    torch.testing.assert_close(prior.denoise(x, 0.1), from_diffusers(folder).denoise(x, 0.1))


def test_model_of_the_hub_that_has_half_precision_only_is_a_prior(folder, on_the_hub):
    full = folder / "unet" / "diffusion_pytorch_model.safetensors"
    full.rename(full.with_name("diffusion_pytorch_model.fp16.safetensors"))
    x = images(1, 1, 8, 8)
    prior = genprior.load_prior("someone/halved")
    prior.autocast = None
    torch.testing.assert_close(prior.denoise(x, 0.1), from_diffusers(folder).denoise(x, 0.1))


def test_model_of_the_hub_that_has_pickles_only_is_a_prior(folder, on_the_hub):
    pickled(folder, network().state_dict())
    x = images(1, 1, 8, 8)
    prior = genprior.load_prior("someone/old")
    prior.autocast = None
    torch.testing.assert_close(prior.denoise(x, 0.1), from_diffusers(folder).denoise(x, 0.1))


def test_pickles_are_left_on_the_hub_where_there_are_others(folder, on_the_hub):
    torch.save(network().state_dict(), folder / PICKLE)
    hub.fetch("someone/both")
    assert not any(path.endswith(".bin") for path in on_the_hub)


def test_weights_of_a_model_that_is_no_prior_are_left_on_the_hub(folder, on_the_hub):
    edit(folder / "model_index.json", text_encoder=["transformers", "CLIPTextModel"])
    with pytest.raises(UnsupportedError, match="text_encoder"):
        hub.fetch("someone/stable")
    assert not any(path.endswith(".safetensors") for path in on_the_hub)
    assert "model_index.json" in on_the_hub
