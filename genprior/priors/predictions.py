"""The input that a diffusion network sees, and how its output F gives the denoised image.

    u_hat = c_skip u_t + c_out F(u_t / scale, s)

Notation: u = 2x - 1 the image on the network's own [-1, 1], n ~ N(0, I), u_t = u + s n; data_std the standard deviation
of the values of u.

References: T. Karras et al., Elucidating the design space of diffusion-based generative models, 2022. Y. Lipman et al.,
Flow matching for generative modeling, 2023. X. Liu, C. Gong, Q. Liu, Flow straight and fast: learning to generate and
transfer data with rectified flow, 2023.
"""

from collections.abc import Callable

from torch import Tensor

Coefficients = tuple[Tensor, Tensor, Tensor]


def karras(s: Tensor, data_std: float) -> Coefficients:
    """scale, c_skip and c_out that give F an input and a target of unit variance, and amplify its errors least."""
    variance = s**2 + data_std**2
    return variance.sqrt(), data_std**2 / variance, s * data_std / variance.sqrt()


def velocity(s: Tensor, data_std: float) -> Coefficients:
    """scale, c_skip and c_out for the straight path z = t u + (1 - t) n, t = 1 / (1 + s), with F its velocity u - n.

    z = t u_t, and E[u - n | z] = (u_hat - z) / (1 - t).
    """
    t = 1 / (1 + s)
    return 1 + s, t, s / (1 + s)


PREDICTIONS: dict[str, Callable[[Tensor, float], Coefficients]] = {"karras": karras, "velocity": velocity}
