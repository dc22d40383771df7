"""Every ZeRO stage × precision × offload, with one rank and with two: trained, restored, or refused."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from drawn_runs import small_config
from engine_cells import STEPS, cell_name
from ranks import finish, places, start_ranks
from training import REPOSITORY, marlin, write_config

from pipeline.config.support import Cell, every_cell, refusal
from pipeline.errors import UsageError
from pipeline.layout import run_store
from train.engine import refuse_unsupported
from train.launch import run_training
from train.status import read_status

Found = dict[str, dict[str, Any]]
SUPPORTED = [cell for cell in every_cell() if refusal(cell) is None]
# Between stages, and between one rank and two. Sums are made in another order; in half precision weights part then.
TOLERANCE = {"fp32": 1e-5, "bf16": 2e-3, "fp16": 5e-4}


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[Found]]:
    """What each rank saw, by the number of ranks."""
    sizes = {}
    for size in (1, 2):
        folder = tmp_path_factory.mktemp(f"cells-{size}")
        ended = finish(start_ranks(["tests/engine_cells.py", str(folder)], places(size)))
        assert [code for code, _ in ended] == [0] * size, ended[-1][1][-3000:]
        sizes[size] = [json.loads((folder / f"rank-{rank}.json").read_text("utf-8")) for rank in range(size)]
    return sizes


@pytest.mark.slow
def test_ranks_see_the_same(found: dict[int, list[Found]]) -> None:
    assert found[2][0] == found[2][1]
    assert list(found[1][0]) == list(found[2][0]) == [cell_name(cell) for cell in SUPPORTED]


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("cell", SUPPORTED, ids=cell_name)
def test_a_supported_cell_trains_as_stage_0_does(found: dict[int, list[Found]], cell: Cell, size: int) -> None:
    losses = found[size][0][cell_name(cell)]["losses"]
    assert losses == pytest.approx(found[1][0]["0-fp32-none"]["losses"], rel=TOLERANCE[cell.precision])
    assert losses[0] > losses[1] > losses[2] > losses[3]


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("cell", SUPPORTED, ids=cell_name)
def test_a_supported_cell_continues_bit_for_bit(found: dict[int, list[Found]], cell: Cell, size: int) -> None:
    """With and without offload, whatever was saved."""
    seen = found[size][0][cell_name(cell)]
    assert set(seen["resumed"]) == ({"none"} if cell.stage == 0 else {"none", "cpu"})
    for losses in seen["resumed"].values():
        assert losses == seen["losses"][STEPS // 2 :]


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("cell", SUPPORTED, ids=cell_name)
def test_a_bad_gradient_of_one_rank_moves_no_weight(found: dict[int, list[Found]], cell: Cell, size: int) -> None:
    seen = found[size][0][cell_name(cell)]
    assert seen["kept"]
    # Scaled losses: from 2^15 on, halved by the update that was left out.
    assert seen["scale"] == (2**14 if cell.precision == "fp16" else 1)


@pytest.mark.parametrize("cell", [cell for cell in every_cell() if refusal(cell)], ids=cell_name)
def test_the_rest_is_refused_with_the_configuration(tmp_path: Path, cell: Cell) -> None:
    with pytest.raises(UsageError, match=r"train\.zero_stage=0: use stage 1, 2 or 3$") as caught:
        small_config(tmp_path, *overrides(cell))
    assert "\n" not in str(caught.value)


def test_fp16_is_refused_where_the_processor_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from deepspeed.accelerator import get_accelerator

    works = False
    monkeypatch.setattr(type(get_accelerator()), "is_fp16_supported", lambda self: works)
    cfg = small_config(tmp_path, *overrides(Cell(1, "fp16", "none")))
    with pytest.raises(UsageError, match=r"train\.precision=fp16 needs a GPU.*: use bf16 or fp32 here$"):
        run_training(cfg)
    assert read_status(run_store(cfg)) is None  # nothing was opened
    works = True
    refuse_unsupported(cfg.train.cell)


@pytest.mark.slow
def test_the_command_refuses_with_status_2(tmp_path: Path) -> None:
    path = write_config(small_config(tmp_path), tmp_path / "mine.yaml")
    ended = marlin("train", "-c", path, "train.offload_optimizer=cpu", "train.zero_stage=0")
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    assert "train.offload_optimizer=cpu has no effect" in ended.stderr


def test_the_table_of_the_manual_is_what_is_refused() -> None:
    text = (REPOSITORY / "docs/training.md").read_text("utf-8")
    rows = re.findall(r"^\| ([0-3]) \| (fp32|bf16|fp16) \| (none|cpu) \| (yes|no)\b", text, re.MULTILINE)
    table = {(int(stage), precision, offload): word == "yes" for stage, precision, offload, word in rows}
    assert table == {tuple(cell): refusal(cell) is None for cell in every_cell()}


def overrides(cell: Cell) -> list[str]:
    stage, precision, offload = cell
    return [f"train.zero_stage={stage}", f"train.precision={precision}", f"train.offload_optimizer={offload}"]
