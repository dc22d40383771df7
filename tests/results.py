"""Results of labelled tasks in the documented format, put beside a run's newest checkpoint."""

from typing import Any

from pipeline.checkpoints import list_checkpoints
from pipeline.config.schema import Config
from pipeline.layout import run_store
from pipeline.storage.manifest import to_json


def binary_result(auc: float = 0.75, **changes: Any) -> dict[str, Any]:
    """A yes-or-no question of two outputs, learned once from all labels."""
    metrics = {"accuracy": 0.625, "auc": auc}
    return {
        "schema": 1,
        "metrics": {**metrics, "majority_accuracy": 0.5},
        "question": "emotion",
        "kind": "binary",
        "shares": [{"share": 1.0, "videos": 16, "mean": metrics, "std": {}}],
        "intervals": {},
        "per_label": {"happy": {"share": 0.5, "accuracy": 0.5, "auc": 0.5}, "sad": {"share": 0.25, "accuracy": 0.75}},
        "subgroups": {},
        "videos": {"train": 16, "val": 4, "test": 8},
        "scored": "test",
        "shared_people": 0,
        "seed": 0,
        "eval": {},
        "dataset": "0" * 64,
        **changes,
    }


def put_result(cfg: Config, task: str, result: dict[str, Any]) -> None:
    """Publish a result of a run's newest checkpoint."""
    run = run_store(cfg)
    run.write(f"evals/{list_checkpoints(run)[-1].name}/{task}.json", to_json(result))
