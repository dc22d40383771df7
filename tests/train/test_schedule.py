"""The learning rate: golden values, the paper's numbers, and its shape."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.load import load_config
from pipeline.config.schema import TrainConfig
from train.schedule import learning_rate


def test_golden_values_of_the_paper() -> None:
    cfg = load_config("ytf-vit-base").train
    total = 2000 * 25  # epochs × steps of 1,600 sources in batches of 64
    peak, floor = 1.5e-4 * 64 / 256, 1e-5 * 64 / 256
    assert learning_rate(cfg, 0, total) == 0
    assert learning_rate(cfg, 20 * 25, total) == pytest.approx(peak / 2)
    assert learning_rate(cfg, 40 * 25, total) == pytest.approx(peak) == pytest.approx(3.75e-5)
    assert learning_rate(cfg, 1020 * 25, total) == pytest.approx((peak + floor) / 2) == pytest.approx(2e-5)
    assert learning_rate(cfg, total, total) == pytest.approx(floor) == pytest.approx(2.5e-6)


@given(
    warmup=st.floats(0, 1),
    total=st.integers(1, 500),
    rates=st.tuples(st.floats(1e-8, 1), st.floats(0, 1)),
)
def test_rises_then_falls_between_its_bounds(warmup: float, total: int, rates: tuple[float, float]) -> None:
    peak, floor = max(rates), min(rates)
    cfg = TrainConfig(steps=total, warmup=warmup, base_lr=peak, min_lr=floor, global_batch=256)
    values = [learning_rate(cfg, step, total) for step in range(total)]
    turn = round(warmup * total)
    rising, falling = values[:turn], values[turn:]
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)
    assert all(0 <= value <= peak * (1 + 1e-9) for value in values)
    assert all(value >= floor * (1 - 1e-9) for value in falling)
    if falling:
        assert falling[0] == pytest.approx(peak)


def test_scales_with_the_global_batch() -> None:
    small, large = (TrainConfig(steps=10, global_batch=batch, micro_batch=8) for batch in (64, 128))
    assert learning_rate(large, 5, 10) == pytest.approx(2 * learning_rate(small, 5, 10))
