"""Kernels, spectra and factors that an operator computes once, for every device and dtype."""

from collections.abc import Callable

import torch
from torch import Tensor


class Constant:
    """Tensors created on first use and cached for each requested dtype and device.

    Arguments:
        make: () -> tuple of tensors; floats and complex numbers follow the precision of x, the rest keep their dtype.
            Pass a method or a partial of a module-level function: pickling a constant pickles only `make`.
    """

    def __init__(self, make: Callable[[], tuple[Tensor, ...]]):
        self._make = make
        self._casts: dict[object, tuple[Tensor, ...]] = {}

    def __getstate__(self) -> dict[str, object]:
        return {"_make": self._make, "_casts": {}}

    @property
    def value(self) -> tuple[Tensor, ...]:
        """The tensors as made."""
        return self._get(None, self._make)

    def like(self, x: Tensor) -> tuple[Tensor, ...]:
        """The tensors in the dtype and on the device of x."""

        def cast(a: Tensor) -> Tensor:
            dtype = x.dtype.to_complex() if a.is_complex() else x.dtype if a.is_floating_point() else a.dtype
            return a.to(device=x.device, dtype=dtype)

        return self._get((x.dtype, x.device), lambda: tuple(cast(a) for a in self.value))

    def _get(self, key: object, make: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        if key not in self._casts:
            # a tensor created in inference mode could never take part in a gradient
            with torch.inference_mode(False), torch.no_grad():
                self._casts[key] = make()
        return self._casts[key]
