"""deepinv's physics as operators, and operators as deepinv's physics; deepinv itself is imported when it is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genprior.operators.base import LinearOperator, Shape, as_shape

if TYPE_CHECKING:
    from deepinv.physics import LinearPhysics


def from_physics(
    physics: LinearPhysics, image_shape: Shape | None = None, measurement_shape: Shape | None = None
) -> LinearOperator:
    """The operator A of a linear deepinv physics; its noise is left out, see `physics_noise`.

    A and A^T are those of a copy of the physics made now, in its own precision, float32 at least; `solve`, `prox` and
    `pinv` are ours, by conjugate gradients.

    Arguments:
        physics: any physics with A and A_adjoint on real (B, C, H, W) tensors, the same A for every image.
        image_shape: (C, H, W) of x; None means physics.img_size.
        measurement_shape: (C', H', W') of y; None means what A gives.

    Raises:
        TypeError: the physics is not linear.
        ValueError: the shape of x is not known, or y is not one real (C', H', W') tensor per image.
    """
    return PhysicsOperator(physics, image_shape, measurement_shape)


def physics_noise(physics: LinearPhysics) -> float | Tensor | None:
    """The standard deviation of a deepinv physics whose noise is Gaussian, float or (B, 1, 1, 1), else None.

    deepinv's default, ZeroNoise, gives None: it means that nothing was said as often as it means no noise.
    """
    from deepinv.physics import GaussianNoise

    if not isinstance(physics.noise_model, GaussianNoise):
        return None
    sigma = torch.as_tensor(physics.noise_model.sigma).detach()
    return sigma.item() if sigma.numel() == 1 else sigma.reshape(-1, 1, 1, 1)


def as_physics(op: LinearOperator, noise: float = 0.0) -> LinearPhysics:
    """A deepinv LinearPhysics that is `op`, with Gaussian noise of that standard deviation, for deepinv's algorithms.

    `A_dagger` and `prox_l2` are `op.pinv` and `op.prox` (deepinv means the same by gamma); deepinv's options for its
    own solvers are accepted and have nothing to act on.
    """
    from deepinv.physics import GaussianNoise, LinearPhysics, ZeroNoise

    class OperatorPhysics(LinearPhysics):
        def A(self, x, **_):
            return op(x)

        def A_adjoint(self, y, **_):
            return op.adjoint(y)

        def A_dagger(self, y, **_):
            return op.pinv(y)

        def prox_l2(self, z, y, gamma, **_):
            # deepinv takes None and numbers for constant images
            z = z if isinstance(z, Tensor) else y.new_full((len(y), *op.image_shape), z or 0.0)
            return op.prox(z, y, gamma)

    return OperatorPhysics(img_size=op.image_shape, noise_model=GaussianNoise(noise) if noise else ZeroNoise())


class PhysicsOperator(LinearOperator):
    """A deepinv physics as an operator; see `from_physics`."""

    def __init__(self, physics: LinearPhysics, image_shape: Shape | None, measurement_shape: Shape | None):
        name = type(physics).__name__
        if not callable(getattr(physics, "A_adjoint", None)):
            raise TypeError(f"{name} has no A_adjoint: it is not linear. Samplers need a linear physics.")
        image_shape = image_shape or getattr(physics, "img_size", None)
        if image_shape is None:
            raise ValueError(f"{name} does not say the size of its images; give image_shape=(C, H, W).")
        self.image_shape = as_shape(image_shape)
        # a copy: the user's may change, and moving it to another device would change it
        physics = physics.clone()
        states = [a for a in (*physics.parameters(), *physics.buffers()) if a.is_floating_point()]
        if any(a.dtype in (torch.float16, torch.bfloat16) for a in states):
            physics = physics.float()  # samplers want more digits, and torch has no FFT in half precision
            states = [a.float() for a in states]
        state = states[0] if states else torch.zeros(())
        self._physics = {state.device: physics}
        self._dtype = state.dtype if states else None
        self.precision = state.dtype if states else torch.float64
        try:
            y = physics.A(torch.zeros(1, *self.image_shape, dtype=state.dtype, device=state.device))
        except RuntimeError as error:
            raise ValueError(
                f"{name} cannot measure images of {self.image_shape} ({error}); give image_shape=(C, H, W)."
            ) from error
        if not isinstance(y, Tensor) or y.is_complex() or y.ndim != 4 or len(y) != 1:
            given = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            raise ValueError(f"{name} must measure one real (1, C', H', W') tensor for one image; it gave {given}.")
        self.measurement_shape = tuple(y.shape[1:])
        if measurement_shape is not None and as_shape(measurement_shape) != self.measurement_shape:
            raise ValueError(
                f"{name} measures {self.measurement_shape} of images of {self.image_shape}, "
                f"not {tuple(measurement_shape)}; give image_shape=(C, H, W)."
            )

    def _forward(self, x: Tensor) -> Tensor:
        return self._on(x.device).A(x.to(dtype=self._dtype)).to(x)

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._on(y.device).A_adjoint(y.to(dtype=self._dtype)).to(y)

    def _select(self, index: Tensor) -> PhysicsOperator:
        return self

    def _on(self, device: torch.device) -> LinearPhysics:
        if device not in self._physics:
            self._physics[device] = next(iter(self._physics.values())).clone().to(device)
        return self._physics[device]
