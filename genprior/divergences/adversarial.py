"""The bound on the Jensen-Shannon divergence that adversarial training maximises, as an estimator.

Notation: l(x) the discriminator's logit, d(x) = 1 / (1 + exp(-l(x))) its probability that x is from p;
softplus(a) = ln(1 + e^a), so that ln d = -softplus(-l) and ln(1 - d) = -softplus(l).
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genprior.ambient import settled
from genprior.checks import as_integer
from genprior.devices import rows_at_once
from genprior.noise import Noise
from genprior.table import Estimate

FEWEST = 8  # images per set; a quarter of them measures the bound
WIDTH = 128
CHECKS = 20  # evaluations on the validation images during training


@settled
def adversarial_bound(
    x_p: Tensor,
    x_q: Tensor,
    *,
    discriminator: nn.Module | None = None,
    steps: int = 1000,
    batch: int = 128,
    rate: float = 1e-3,
    seed: int = 0,
) -> Estimate:
    """A lower bound on JS(p, q), in nats, by a discriminator trained on images of both, and its standard error.

        E_p[ln d(x)] + E_q[ln(1 - d(x))] <= 2 JS(p, q) - 2 ln 2   for any d, with equality for d = p / (p + q)

    so JS >= ln 2 + (E_p[ln d] + E_q[ln(1 - d)]) / 2. Half of the images train d, a quarter selects its best step, and
    the last quarter, unseen by both, measures it: a d that memorised its images or learned nothing still gives a lower
    bound, only a worse one. The figure is an unbiased estimate of that bound and exceeds JS by chance only. A figure
    below 0 says no more than 0, which d = 1/2 would have given.

    Arguments:
        x_p, x_q: (n, ...) and (m, ...), independent images from p and from q; shuffled here.
        discriminator: images (B, ...) -> logits (B,), each computed from its own image alone, as by
            `nets.gan.Discriminator(shape, compare=False)`; trained in place. None for two hidden layers of 128 units,
            on values in multiples of the standard deviation of x.
        steps: of Adam, each on `batch` images of each set, at the learning rate `rate`.
        seed: of shuffling, batches and the default network.

    Raises:
        ValueError: the images differ in shape, a set has fewer than 8, or steps or batch is below 1.

    References: I. Goodfellow et al., Generative adversarial networks, 2014.
    """
    steps, batch = as_integer("steps", steps, 1, math.inf), as_integer("batch", batch, 1, math.inf)
    if x_p.shape[1:] != x_q.shape[1:] or min(len(x_p), len(x_q)) < FEWEST:
        raise ValueError(
            f"x_p and x_q have shapes {tuple(x_p.shape)} and {tuple(x_q.shape)}: give images of one shape, at least "
            f"{FEWEST} of each."
        )
    parts = [_parts(x, Noise(seed, [k])) for k, x in enumerate((x_p, x_q))]
    net = discriminator
    if net is None:
        train = torch.cat([train for train, *_ in parts])
        mean = train.mean(0)
        sd = (train - mean).square().mean().sqrt().clamp_min(1e-12)
        parts = [[(x - mean) / sd for x in part] for part in parts]
        net = _perceptron(train, seed)
    (train_p, check_p, test_p), (train_q, check_q, test_q) = parts
    parameters = [p for p in net.parameters() if p.requires_grad]
    adam = torch.optim.Adam(parameters, lr=rate)
    of_p, of_q = Noise(seed, [2]), Noise(seed, [3])
    best, found = _bound(net, check_p, check_q).value, copy.deepcopy(net.state_dict())
    for step in range(1, steps + 1):
        net.train()
        logit_p, logit_q = net(_some(train_p, batch, of_p)), net(_some(train_q, batch, of_q))
        loss = F.softplus(-logit_p).mean() + F.softplus(logit_q).mean()
        adam.zero_grad()
        loss.backward(inputs=parameters)
        adam.step()
        if step % max(1, steps // CHECKS) == 0 or step == steps:
            bound = _bound(net, check_p, check_q).value
            if bound > best:
                best, found = bound, copy.deepcopy(net.state_dict())
    net.load_state_dict(found)
    return _bound(net, test_p, test_q)


@torch.no_grad()
def _bound(net: nn.Module, x_p: Tensor, x_q: Tensor) -> Estimate:
    net.eval()
    parts = [x.split(rows_at_once((1, 1, *x.shape[1:]), x.device)) for x in (x_p, x_q)]
    of_p = Estimate.mean(math.log(2) - F.softplus(-torch.cat([net(x) for x in parts[0]]).double()))
    of_q = Estimate.mean(math.log(2) - F.softplus(torch.cat([net(x) for x in parts[1]]).double()))
    return Estimate.average([of_p, of_q])


def _parts(x: Tensor, noise: Noise) -> tuple[Tensor, Tensor, Tensor]:
    """Split the images into a half, a quarter and a quarter, in random order."""
    order = noise.uniform(_numbers(len(x), x))[0].argsort()
    half, quarter = len(x) // 2, len(x) // 4
    first, second, third = order.split([half, quarter, len(x) - half - quarter])
    return x[first], x[second], x[third]


def _some(x: Tensor, count: int, noise: Noise) -> Tensor:
    """`count` of the images, drawn with replacement."""
    return x[(noise.uniform(_numbers(count, x))[0] * len(x)).long()]


def _numbers(count: int, x: Tensor) -> Tensor:
    return torch.empty(1, count, dtype=torch.float64, device=x.device)


def _perceptron(x: Tensor, seed: int) -> nn.Module:
    """A network of two hidden layers for standardised images like x; the seed keys its weights."""
    inputs = x[0].numel()
    net = nn.Sequential(
        nn.Flatten(),
        nn.utils.skip_init(nn.Linear, inputs, WIDTH),
        nn.LeakyReLU(0.2),
        nn.utils.skip_init(nn.Linear, WIDTH, WIDTH),
        nn.LeakyReLU(0.2),
        nn.utils.skip_init(nn.Linear, WIDTH, 1),
        nn.Flatten(0),
    )
    layers = [layer for layer in net if isinstance(layer, nn.Linear)]
    for k, layer in enumerate(layers):
        # keeps the size of activations through leaky ReLUs; the last layer is 0, so that d = 1/2 at the start
        gain = 0 if layer is layers[-1] else math.sqrt(2 / 1.04 / layer.in_features)
        layer.weight.data.copy_(gain * Noise(seed, [4 + k])(layer.weight[None])[0])
        layer.bias.data.zero_()
    return net.to(x)
