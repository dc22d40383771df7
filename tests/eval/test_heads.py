"""Heads beside the results: read as they were written, created once, damage named."""

import pytest
import torch
from safetensors.torch import save

from eval.heads import HEAD, Head, heads_of, publish_head, read_head
from eval.results import publish_result
from pipeline.checkpoints import Checkpoint
from pipeline.errors import MarlinError
from pipeline.storage import Store

CHECKPOINT = Checkpoint(20, 0, "checkpoints/step-00000020/a", (), {})
NAMES = ("appearance/young", "action/Lächeln")


def drawn_head(seed: int = 0) -> Head:
    dice = torch.Generator().manual_seed(seed)
    return Head(NAMES, torch.randn(2, 6, generator=dice), torch.randn(2, generator=dice))


def same(left: Head | None, right: Head) -> bool:
    return (
        left is not None
        and left.names == right.names
        and torch.equal(left.weight, right.weight)
        and torch.equal(left.bias, right.bias)
    )


def publish(store: Store, task: str, head: Head) -> str:
    """A head with the result that names it."""
    name = publish_head(store, CHECKPOINT, task, head)
    publish_result(store, CHECKPOINT, task, {"metrics": {}, HEAD: name})
    return name


def test_a_head_comes_back_as_it_was_published(store: Store) -> None:
    assert read_head(store, CHECKPOINT, "attributes-linear") is None
    assert heads_of(store, CHECKPOINT) == []
    name = publish(store, "attributes-linear", drawn_head())
    assert same(read_head(store, CHECKPOINT, "attributes-linear"), drawn_head())
    publish_result(store, CHECKPOINT, "attributes-finetune", {"metrics": {}})
    assert read_head(store, CHECKPOINT, "attributes-finetune") is None
    store.write("evals/step-00000020.r0/attributes-knn.unfinished/0/first.json", b'{"schema": "of its own"}')
    assert heads_of(store, CHECKPOINT) == ["attributes-linear"]
    assert name.endswith(".head.safetensors")
    assert store.exists(f"evals/step-00000020.r0/{name}")


def test_what_is_no_contiguous_float32_is_stored_as_such(store: Store) -> None:
    weight = torch.arange(6, dtype=torch.float64).view(3, 2).T
    publish(store, "t", Head(NAMES, weight, torch.zeros(2, dtype=torch.float64)))
    published = read_head(store, CHECKPOINT, "t")
    assert published is not None
    assert published.weight.dtype == published.bias.dtype == torch.float32
    assert torch.equal(published.weight, weight.float())


def test_the_head_of_a_result_is_its_own(store: Store) -> None:
    publish_head(store, CHECKPOINT, "t", drawn_head(1))  # of a job that was killed before its result
    publish(store, "t", drawn_head(2))
    publish_head(store, CHECKPOINT, "t", drawn_head(3))  # of a slower one
    assert same(read_head(store, CHECKPOINT, "t"), drawn_head(2))


@pytest.mark.parametrize(
    "data",
    [
        b"no tensors",
        save({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}),
        save({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}, {"names": "["}),
        save({"weight": torch.zeros(2, 3)}, {"names": '["a", "b"]'}),
        save({"weight": torch.zeros(3, 3), "bias": torch.zeros(3)}, {"names": '["a", "b"]'}),
        save({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}, {"names": "3"}),
    ],
    ids=["garbage", "no names", "half names", "no bias", "wrong shapes", "names that are none"],
)
def test_a_damaged_head_is_named(store: Store, data: bytes) -> None:
    key = f"evals/{CHECKPOINT.name}/{publish(store, 't', drawn_head())}"
    store.write(key, data)
    with pytest.raises(MarlinError, match=r"head\.safetensors is damaged \(.*remove t\.json, and evaluate again"):
        read_head(store, CHECKPOINT, "t")
    store.delete(key)
    with pytest.raises(MarlinError, match=r"head\.safetensors is damaged \("):
        read_head(store, CHECKPOINT, "t")


def test_an_output_scores_as_its_row_of_the_layer_does() -> None:
    features, head = torch.randn(3, 6, generator=torch.Generator().manual_seed(9)), drawn_head()
    expected = torch.nn.functional.linear(features, head.weight, head.bias)
    for column, name in enumerate(NAMES):
        torch.testing.assert_close(head.output(name).score(features), expected[:, column])
    with pytest.raises(ValueError, match="not in tuple"):
        head.output("appearance/old")


def test_a_head_that_does_not_fit_itself_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a weight \(2, D\) and a bias \(2,\), not weight \(3, 4\)"):
        Head(NAMES, torch.zeros(3, 4), torch.zeros(2))
    with pytest.raises(ValueError, match="the same name"):
        Head(("a", "a"), torch.zeros(2, 4), torch.zeros(2))
