"""The integer hash has the same bits everywhere, and they never change."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from train.hashing import (
    START,
    TRIM,
    key_hash,
    mix,
    mix_array,
    mix_tensor,
    noise_tensor,
    sample_hash,
    sample_hashes,
    signed,
    stream,
    stream_array,
)

GOLDEN = 0x9E3779B97F4A7C15
words = st.integers(0, 2**64 - 1)


def test_mix_is_splitmix64():
    # The first outputs of the published generator seeded with 0 (Vigna's splitmix64.c).
    outputs = [mix(GOLDEN * count) for count in (1, 2, 3)]
    assert outputs == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]


def test_sample_hash_never_changes():
    assert key_hash("000000-t00-000128") == 0xCFE061F43D6823CA
    assert sample_hash(7, 3, "000000-t00-000128") == 0x6EAC21B3426CDDBC
    assert stream(0x6EAC21B3426CDDBC, START) == 0x76BBA3FF7EA1758A


@given(st.lists(words, min_size=1, max_size=20))
def test_mix_agrees_in_python_numpy_and_torch(values: list[int]):
    expected = [mix(value) for value in values]
    assert mix_array(np.array(values, np.uint64)).tolist() == expected
    assert mix_tensor(torch.tensor([signed(value) for value in values])).tolist() == [signed(v) for v in expected]


@given(st.lists(words, min_size=1, max_size=5), st.integers(0, 2**63), st.integers(0, 10**6), st.integers(1, 20))
def test_derived_hashes_agree(values: list[int], seed: int, epoch: int, purpose: int):
    keys = [f"key-{value}" for value in values]
    hashes = sample_hashes(seed, epoch, np.array([key_hash(key) for key in keys], np.uint64))
    assert hashes.tolist() == [sample_hash(seed, epoch, key) for key in keys]
    assert stream_array(hashes, purpose).tolist() == [stream(int(value), purpose) for value in hashes]


@given(words, st.integers(1, 20))
def test_noise_is_the_splitmix_sequence_of_the_stream(value: int, purpose: int):
    noise = noise_tensor(torch.tensor([signed(value)]), purpose, torch.arange(4))
    base = stream(value, purpose)
    assert noise[0].tolist() == [signed(mix(base + (count + 1) * GOLDEN)) for count in range(4)]


def test_hashes_are_uniform_over_epochs_and_samples():
    draws = [stream(sample_hash(0, epoch, f"s{key}"), START) % 34 for epoch in range(40) for key in range(100)]
    assert stats.chisquare(np.bincount(draws, minlength=34)).pvalue > 1e-3


def test_purposes_and_neighbouring_seeds_are_unrelated():
    base = [sample_hash(seed, epoch, "k") for seed in range(50) for epoch in range(50)]
    assert len(set(base)) == 2500
    flipped = [bin(stream(value, START) ^ stream(value, TRIM)).count("1") for value in base]
    assert 31.5 < np.mean(flipped) < 32.5
