"""Random numbers that are a function of a seed and a counter, for many rows at once.

A generator object for each row costs more than reading the row. Here the n-th number of a seed is the output mix of
SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, OOPSLA 2014) at the seed plus n + 1
golden-ratio steps, so that a batch is drawn by a few array operations, and a single row gives the same numbers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
_SHIFTS = (np.uint64(30), np.uint64(27), np.uint64(31))
_TO_DOUBLE = np.uint64(11)  # 53 bits remain


def uniform(seeds: NDArray[np.uint64], counter: ArrayLike) -> NDArray[np.float64]:
    """Numbers in [0, 1): one for each of `seeds` (n,), the `counter`-th (a number, or one for each seed)."""
    with np.errstate(over="ignore"):  # arithmetic modulo 2**64 is what is meant
        z = seeds + (np.asarray(counter, dtype=np.uint64) + np.uint64(1)) * _STEP
        z = (z ^ (z >> _SHIFTS[0])) * _MIX[0]
        z = (z ^ (z >> _SHIFTS[1])) * _MIX[1]
        bits: NDArray[np.uint64] = (z ^ (z >> _SHIFTS[2])) >> _TO_DOUBLE
    return bits.astype(np.float64) * 2.0**-53


def below(seeds: NDArray[np.uint64], counter: ArrayLike, bound: ArrayLike) -> NDArray[np.int64]:
    """Integers in [0, bound), from `uniform`."""
    scaled: NDArray[np.float64] = uniform(seeds, counter) * np.asarray(bound)
    return scaled.astype(np.int64)
