"""Noise keyed by (seed, image, sample, step): the same numbers on every device and in every batching."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from numbers import Integral

import torch
from torch import Tensor

from genprior.ambient import own, settled

MASK = 0xFFFFFFFF
ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
# For small tensors, the cost is in starting many small operations: up to so many steps, of so many values, are made
# at once.
STEPS_AHEAD = 8
VALUES_AHEAD = 2**17


def philox(counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Philox4x32-10: four 32-bit words that look random, a function of the counter and the key alone.

    One round maps (c0, c1, c2, c3) to (hi(M1 c2) ^ c1 ^ k0, lo(M1 c2), hi(M0 c0) ^ c3 ^ k1, lo(M0 c0)), hi and lo the
    halves of the 64-bit product; the key then grows by the Weyl constants.

    Arguments:
        counter: four broadcastable int64 tensors of words in [0, 2**32).
        key: two words in [0, 2**32).

    Returns:
        Four int64 tensors of words in [0, 2**32).

    References:
        Parallel random numbers: as easy as 1, 2, 3. J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, 2011.
    """
    # In place, since fresh memory costs several times as much as the arithmetic.
    c0, c1, c2, c3 = (c.clone(memory_format=torch.contiguous_format) for c in torch.broadcast_tensors(*counter))
    high = torch.empty_like(c0)
    k0, k1 = key
    for _ in range(ROUNDS):
        # int64 products wrap around, but keep all 64 bits of the unsigned product: the halves are right.
        p0, p1 = c0.mul_(MULTIPLIERS[0]), c2.mul_(MULTIPLIERS[1])
        torch.bitwise_right_shift(p1, 32, out=high)
        c0 = c1.bitwise_xor_(high).bitwise_xor_(k0).bitwise_and_(MASK)
        torch.bitwise_right_shift(p0, 32, out=high)
        c2 = c3.bitwise_xor_(high).bitwise_xor_(k1).bitwise_and_(MASK)
        # Their low halves: the mask of the next round, or the last one, clears the bits above them.
        c1, c3 = p1, p0
        k0 = (k0 + WEYL[0]) & MASK
        k1 = (k1 + WEYL[1]) & MASK
    return c0, c1.bitwise_and_(MASK), c2, c3.bitwise_and_(MASK)


class Noise:
    """The noise of a set of chains: row r is a function of (seed, image[r], sample[r], step, row shape) alone.

    Element 4 i + j of a row is made from word j of Philox(counter = (i, step, sample, image), key = seed); every call
    is the next step. Neither the device nor the other rows of the batch change a row's numbers (up to the rounding of
    log, cos and sin), and torch's global random state is neither read nor written.

    Arguments:
        seed: integer in [0, 2**64).
        image: (B,) integers in [0, 2**32): the image each row belongs to.
        sample: (B,) integers in [0, 2**32): the sample (chain) of that image; default 0.

    Raises:
        ValueError: the seed or a number is out of range (numbers are checked on the CPU only), or image and sample
            differ in length.

    References:
        Parallel random numbers: as easy as 1, 2, 3. J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, 2011.
        A note on the generation of random normal deviates. G. E. P. Box, M. E. Muller, 1958.
    """

    _kind: tuple | None = None
    _steps: range = range(0)
    _made: Tensor

    @settled
    def __init__(self, seed: int, image: Tensor | Sequence[int], sample: Tensor | Sequence[int] | None = None):
        if not isinstance(seed, Integral) or not 0 <= seed < 2**64:
            raise ValueError(f"seed is {seed!r}: give an integer in [0, 2**64)")
        self.key = (int(seed) & MASK, int(seed) >> 32)
        self.image = _as_words("image", image)
        self.sample = torch.zeros_like(self.image) if sample is None else _as_words("sample", sample)
        if len(self.image) != len(self.sample):
            raise ValueError(
                f"{len(self.image)} image numbers but {len(self.sample)} sample numbers: give one of each per row"
            )
        self.step = 0

    @classmethod
    def of_draws(cls, n: int, seed: int) -> Noise:
        """The noise of draws 0 to n - 1 of a prior; each draw is the same whatever n is.

        Raises:
            ValueError: n is not a whole number, at least 1.
        """
        if isinstance(n, bool) or not isinstance(n, Integral) or n < 1:
            raise ValueError(f"n is {n!r}: give the number of draws, an integer, at least 1")
        return cls(seed, torch.zeros(n, dtype=torch.long), torch.arange(n))

    @torch.no_grad()
    def __call__(self, like: Tensor) -> Tensor:
        """Standard normal noise of the next step: r cos(t) and r sin(t) with r = sqrt(-2 log u), t = 2 pi v.

        Arguments:
            like: (B, ...) floating-point tensor whose shape, dtype and device the noise takes.

        Raises:
            ValueError: `like` is not floating-point or does not have one row per image number.
        """
        return self._next(like, _normal)

    @torch.no_grad()
    def uniform(self, like: Tensor) -> Tensor:
        """Uniform noise in (0, 1) of the next step; arguments and errors as for the normal one."""
        return self._next(like, _uniform)

    def cloud(self, row: Tensor, first: Tensor, particles: int) -> Noise:
        """The noise of `particles` samples from number `first`, (1,), for one image, (1,), from this step on."""
        part = self.select(row.expand(particles))
        part.sample = first.to(self.image.device) + torch.arange(particles, device=self.image.device)
        return part

    def select(self, rows: Tensor) -> Noise:
        """The noise of some of the rows, from the same step on."""
        part = object.__new__(Noise)
        part.key, part.step = self.key, self.step
        part.image, part.sample = self.image[rows], self.sample[rows]
        return part

    def _next(self, like: Tensor, law: Callable[[Sequence[Tensor], Tensor], list[Tensor]]) -> Tensor:
        """The numbers of this step; later steps are made ahead, as many as were asked for in a row so far."""
        if not like.is_floating_point() or like.ndim == 0 or len(like) != len(self.image):
            raise ValueError(
                f"noise for {len(self.image)} rows was asked for a {like.dtype} tensor of shape {tuple(like.shape)}: "
                f"give a floating-point tensor whose first size is {len(self.image)}"
            )
        kind = (law, like.shape, like.dtype, like.device)
        if kind != self._kind or self.step not in self._steps:
            wanted = 2 * len(self._steps) if kind == self._kind else 1
            count = max(1, min(wanted, STEPS_AHEAD, VALUES_AHEAD // max(1, like.numel())))
            self._kind, self._steps = kind, range(self.step, self.step + count)
            parts = law(self._words(like, self._steps), like)
            rows = torch.stack(parts, dim=-1).flatten(-2)[..., : math.prod(like.shape[1:])]
            self._made = rows.reshape(count, *like.shape).to(like.dtype).contiguous()
        made = self._made[self._steps.index(self.step)]
        self.step += 1
        return made

    def _words(self, like: Tensor, steps: range) -> tuple[Tensor, ...]:
        """The words of those steps, four of (steps, B, words)."""
        self.image = self.image.to(like.device)
        self.sample = self.sample.to(like.device)
        index = torch.arange(math.ceil(math.prod(like.shape[1:]) / 4), device=like.device)
        step = torch.arange(steps.start, steps.stop, device=like.device)[:, None, None]
        return philox((index, step, self.sample[:, None], self.image[:, None]), self.key)


def _uniform(words: Sequence[Tensor], like: Tensor) -> list[Tensor]:
    # The middle of one of 2**32 (float64) or 2**23 (float32) equal cells: never 0, never rounded to 1.
    if like.dtype == torch.float64:
        return [word.double().add_(0.5).mul_(2.0**-32) for word in words]
    return [(word >> 9).float().add_(0.5).mul_(2.0**-23) for word in words]


def _normal(words: Sequence[Tensor], like: Tensor) -> list[Tensor]:
    u1, v1, u2, v2 = _uniform(words, like)
    return [*_box_muller(u1, v1), *_box_muller(u2, v2)]


def _box_muller(u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    r = u.log_().mul_(-2).sqrt_()
    t = v.mul_(2 * math.pi)
    return r * t.cos(), r * t.sin()


def _as_words(name: str, numbers: Tensor | Sequence[int]) -> Tensor:
    words = torch.as_tensor(numbers)
    if words.ndim != 1 or words.is_floating_point() or words.is_complex():
        raise ValueError(f"{name} is {numbers!r}: give a list of integers, one per row")
    words = own(words.to(torch.int64))
    # Other devices are not checked: that would wait for them.
    if words.device.type == "cpu" and ((words < 0) | (words > MASK)).any():
        raise ValueError(f"{name} numbers {words.tolist()} are out of range: give integers in [0, 2**32)")
    return words
