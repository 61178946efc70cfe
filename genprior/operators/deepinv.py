"""Convert deepinv physics to operators, and operators to deepinv physics; deepinv is imported only when needed."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from genprior.ambient import settled
from genprior.checks import Shape, as_shape, as_tensor
from genprior.likelihoods import Likelihood, Poisson, PoissonGaussian, Quantised
from genprior.operators.base import Operator
from genprior.operators.differentiable import check_differentiable
from genprior.operators.linear import LinearOperator
from genprior.operators.linearity import check_linear

if TYPE_CHECKING:
    from deepinv.physics import LinearPhysics, Physics


@settled
def from_physics(
    physics: Physics,
    image_shape: Shape | None = None,
    measurement_shape: Shape | None = None,
    *,
    y: Tensor | np.ndarray | None = None,
) -> Operator:
    """The operator A of a deepinv physics, linear or not, without its noise; see `physics_noise`.

    A and A^T are those of a copy of the physics made now, in its own precision, at least float32; `solve`, `prox` and
    `pinv` are ours, by conjugate gradients, and autograd gives derivatives. The operator is checked on one draw; see
    `check`. A physics that is not a LinearPhysics becomes a linear operator if it passes as one, otherwise an
    `Operator`.

    Arguments:
        physics: any physics with A on real (B, C, H, W) tensors, the same A for every image; with A_adjoint, if it is
            a LinearPhysics.
        image_shape: (C, H, W) of x; None means physics.img_size, or, if it has none, the shape of A_adjoint(y).
        measurement_shape: (C', H', W') of y; None means the shape that A gives.
        y: a measurement, (C', H', W') or (B, C', H', W').

    Raises:
        TypeError: a LinearPhysics is not linear, or its A_adjoint is not the adjoint of its A; another physics is not
            differentiable; or the sensor changes values.
        ValueError: the shape of x is unknown, or y is not one real (C', H', W') tensor per image.
    """
    from deepinv.physics import LinearPhysics

    image_shape = _size_of_images(physics, y) if image_shape is None else image_shape
    A = NonlinearPhysics(physics, image_shape, measurement_shape)
    if isinstance(physics, LinearPhysics) or callable(getattr(physics, "A_adjoint", None)):
        linear = PhysicsOperator(physics, image_shape, measurement_shape)
        try:
            check_linear(linear, torch.empty(0))
        except (TypeError, ValueError):
            if isinstance(physics, LinearPhysics):
                raise
        else:
            return linear
    check_differentiable(A, torch.empty(0))
    return A


@settled
def physics_noise(physics: Physics) -> float | Tensor | Likelihood | None:
    """The noise of a deepinv physics: if Gaussian, its standard deviation, float or (B, 1, 1, 1), else its likelihood.

    Uniform noise in [-a, a] has the likelihood of rounding to steps of 2 a.

    deepinv's default, ZeroNoise, gives None: it may mean no noise, or that the noise was never stated.

    Raises:
        TypeError: the noise has another law, or a level that is drawn each time.
    """
    from deepinv.physics import GaussianNoise, PoissonGaussianNoise, PoissonNoise, UniformNoise, ZeroNoise

    model = physics.noise_model
    if isinstance(model, ZeroNoise):
        return None
    if isinstance(model, PoissonNoise) and model.normalize:
        return Poisson(_number(model.gain))
    if isinstance(model, PoissonGaussianNoise):
        return PoissonGaussian(_number(model.gain), _number(model.sigma))
    if isinstance(model, UniformNoise):
        return Quantised(2 * _number(model.a))
    if not isinstance(model, GaussianNoise):
        raise TypeError(
            f"The noise of {type(physics).__name__} is {type(model).__name__}, neither Gaussian nor another of "
            "genprior.likelihoods. Say which to take in its place, as noise=0.02 in the units of y: about the root of "
            "the mean variance of its noise."
        )
    return _number(model.sigma)


def _number(parameter: Any) -> float | Tensor:
    value = torch.as_tensor(parameter).detach()
    return value.item() if value.numel() == 1 else value.reshape(-1, 1, 1, 1)


@settled
def as_physics(op: LinearOperator, noise: float = 0.0) -> LinearPhysics:
    """Wrap `op` as a deepinv LinearPhysics with Gaussian noise of that standard deviation, for deepinv's algorithms.

    `A_dagger` and `prox_l2` are `op.pinv` and `op.prox` (gamma means the same in deepinv); options for deepinv's own
    solvers are accepted and ignored.
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
            # deepinv accepts None and numbers for constant images
            z = z if isinstance(z, Tensor) else y.new_full((len(y), *op.image_shape), z or 0.0)
            return op.prox(z, y, gamma)

    model: Any = GaussianNoise(noise) if noise else ZeroNoise()
    return OperatorPhysics(img_size=op.image_shape, noise_model=model)


class WrappedPhysics(Operator):
    """A deepinv physics as an operator; see `from_physics`, which also checks it."""

    def __init__(self, physics: Physics, image_shape: Shape, measurement_shape: Shape | None):
        self._name = type(physics).__name__
        self.image_shape = as_shape(image_shape)
        # the user's physics may change, and moving it to another device would change it
        physics = _copy(physics)
        states = _states(physics)
        state = states[0] if states else torch.empty(0)
        v = torch.linspace(-1, 2, 64, dtype=state.dtype, device=state.device).reshape(1, 1, 8, 8)
        if not torch.equal(self._told(physics.sensor_model, v), v):
            raise TypeError(
                f"The sensor_model of {self._name} changes values, and samplers need y = A x + noise. Give a physics "
                "without it, and y before the sensor."
            )
        physics.sensor_model, physics.noise_model = torch.nn.Identity(), torch.nn.Identity()
        self.physics = physics
        self._moved = {state.device: physics}
        # a physics without tensors computes in the precision of x
        self._dtype = state.dtype if states else None
        self.precision = state.dtype if states else torch.float64
        y = self._told(physics.A, torch.zeros(1, *self.image_shape, dtype=state.dtype, device=state.device))
        if not isinstance(y, Tensor) or y.is_complex() or y.ndim != 4 or len(y) != 1:
            given = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
            kind = "complex " if isinstance(y, Tensor) and y.is_complex() else ""
            raise ValueError(
                f"{self._name} must measure one real (1, C', H', W') tensor for one image; it gave {kind}{given}."
            )
        self.measurement_shape = tuple(y.shape[1:])
        if measurement_shape is not None and as_shape(measurement_shape) != self.measurement_shape:
            raise ValueError(
                f"{self._name} measures {self.measurement_shape} of images of {self.image_shape}, "
                f"not {tuple(measurement_shape)}; give image_shape=(C, H, W)."
            )

    def __getstate__(self) -> dict[str, object]:
        import cloudpickle  # deepinv physics hold anonymous functions, which pickle refuses

        return {**vars(self), "physics": cloudpickle.dumps(_copy(self.physics)), "_moved": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        physics = pickle.loads(state["physics"])
        device = next((a.device for a in _states(physics)), torch.device("cpu"))
        vars(self).update(state, physics=physics, _moved={device: physics})

    def _forward(self, x: Tensor) -> Tensor:
        return self._told(self._on(x.device).A, x.to(dtype=self._dtype)).to(x)

    def _told(self, function: Callable[[Tensor], Tensor], a: Tensor) -> Tensor:
        """Call a function of deepinv, and restate its errors, of whatever class, in our words."""
        try:
            return function(a)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            what = getattr(function, "__name__", "sensor_model")
            raise ValueError(
                f"{self._name} cannot measure images of {self.image_shape}: its {what} failed on {tuple(a.shape)} "
                f"({type(error).__name__}: {error}); give image_shape=(C, H, W)."
            ) from error

    def _on(self, device: torch.device) -> Physics:
        if device not in self._moved:
            self._moved[device] = _copy(self.physics).to(device)
        return self._moved[device]


class PhysicsOperator(WrappedPhysics, LinearOperator):
    """A linear physics as an operator."""

    def _adjoint(self, y: Tensor) -> Tensor:
        physics: Any = self._on(y.device)
        return self._told(physics.A_adjoint, y.to(dtype=self._dtype)).to(y)

    def _select(self, index: Tensor) -> PhysicsOperator:
        return self


class NonlinearPhysics(WrappedPhysics):
    """A physics that is not linear, as an operator."""

    def _select(self, index: Tensor) -> NonlinearPhysics:
        return self


def _copy(physics: Physics) -> Physics:
    """A copy that shares nothing; an adjoint that deepinv made by autograd would still be that of the original A."""
    physics = physics.clone()
    if any(a.dtype in (torch.float16, torch.bfloat16) for a in _states(physics)):
        physics = physics.float()  # samplers want more digits, and torch has no FFT in half precision
    for part in physics.modules():
        if getattr(part, "_auto_grad_adjoint_fn", None) is not None:
            part._auto_grad_adjoint_fn = None  # made anew when needed  # pyright: ignore[reportArgumentType]
    return physics


def _size_of_images(physics: Physics, y: Tensor | np.ndarray | None) -> Shape:
    """(C, H, W) as the physics states it, or that of A_adjoint(y)."""
    name = type(physics).__name__
    if (size := getattr(physics, "img_size", None)) is not None:
        return size
    problem = ""
    if y is not None and callable(getattr(physics, "A_adjoint", None)):
        physics = _copy(physics)
        adjoint: Any = physics.A_adjoint
        states = _states(physics)
        one = as_tensor("y", y).to(states[0] if states else torch.empty(0))
        try:
            x = adjoint(one[:1] if one.ndim == 4 else one[None])
            if isinstance(x, Tensor) and x.ndim == 4:
                return tuple(x.shape[1:])
            problem = f", and its A_adjoint gives {tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__} of y"
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            problem = f", and its A_adjoint failed on y {tuple(y.shape)} ({type(error).__name__}: {error})"
    raise ValueError(f"{name} does not say the size of its images{problem}; give image_shape=(C, H, W).")


def _states(physics: Physics) -> list[Tensor]:
    """The tensors that set the precision and device of the physics; those of its noise do not count."""
    named = [*physics.named_parameters(), *physics.named_buffers()]
    return [a for name, a in named if a.is_floating_point() and not name.startswith("noise_model.")]
