"""All randomness of a sample: integer hashes with the same bits in Python, numpy and torch.

A generator has state, and state depends on who read what before. A hash of (seed, epoch, sample key) does not, so a
run resumes exactly on any number of devices. The mixer is the finaliser of splitmix64 (Steele, Lea, Flood,
"Fast splittable pseudorandom number generators", 2014), used in counter mode.
"""

import hashlib
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # torch is not needed to plan an order
    from torch import Tensor

UInt64s = NDArray[np.uint64]

# Purposes: each gives a sample an independent stream of random numbers. Changing a value changes every run.
DRAW = 1
START = 2
FLIP = 3
REGION_ORDER = 4
TRIM = 5
PATTERN = 6
DEAL = 7
SHUFFLE = 8
PIXELS = 9
PENALTY = 10

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB


def signed(value: int) -> int:
    """The two's complement int64 with the bits of a 64-bit unsigned integer, as torch stores it."""
    return value - (1 << 64) if value >> 63 else value


def mix(value: int) -> int:
    """Hash a 64-bit unsigned integer; every bit of the result depends on every bit of the value."""
    value &= _MASK
    value = ((value ^ (value >> 30)) * _FIRST) & _MASK
    value = ((value ^ (value >> 27)) * _SECOND) & _MASK
    return value ^ (value >> 31)


def mix_array(values: UInt64s) -> UInt64s:
    """`mix` of each element of a uint64 array."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(_FIRST)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(_SECOND)
    return values ^ (values >> np.uint64(31))


def mix_tensor(values: "Tensor") -> "Tensor":
    """`mix` of each element of an int64 tensor, on its device; bits are those of the unsigned result."""
    values = (values ^ _shift(values, 30)) * signed(_FIRST)
    values = (values ^ _shift(values, 27)) * signed(_SECOND)
    return values ^ _shift(values, 31)


def _shift(values: "Tensor", bits: int) -> "Tensor":
    # `>>` of a signed integer drags the sign bit in; the mask makes it a logical shift.
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def key_hash(key: str) -> int:
    """A stable 64-bit hash of a name (blake2b), unlike Python's own, which changes from process to process."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")


def sample_hash(seed: int, epoch: int, key: str) -> int:
    """The 64-bit unsigned hash that all randomness of a sample in an epoch derives from."""
    return mix(epoch_hash(seed, epoch) ^ key_hash(key))


def sample_hashes(seed: int, epoch: int, key_hashes: UInt64s) -> UInt64s:
    """`sample_hash` of many samples, given the `key_hash` of each."""
    return mix_array(key_hashes ^ np.uint64(epoch_hash(seed, epoch)))


def epoch_hash(seed: int, epoch: int) -> int:
    """The part of `sample_hash` that all samples of an epoch share."""
    return mix(mix(seed + _GOLDEN) + epoch)


def stream(value: int, purpose: int) -> int:
    """The hash of a sample for one purpose."""
    return mix(value + purpose * _GOLDEN)


def stream_array(values: UInt64s, purpose: int) -> UInt64s:
    """`stream` of each element of a uint64 array."""
    return mix_array(values + np.uint64((purpose * _GOLDEN) & _MASK))


def noise_tensor(hash_B: "Tensor", purpose: int, counter_N: "Tensor") -> "Tensor":
    """Random 64-bit integers (B, N) of samples for one purpose, one for each counter.

    Args:
        hash_B: int64 sample hashes.
        purpose: one of this module's purposes.
        counter_N: int64 counters on the same device, usually 0..N-1.
    """
    base_B = mix_tensor(hash_B + signed((purpose * _GOLDEN) & _MASK))
    return mix_tensor(base_B[:, None] + (counter_N + 1) * signed(_GOLDEN))
