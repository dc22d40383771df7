"""What MLflow has of a run, read back."""

from pipeline.config.schema import Config
from pipeline.layout import tracking_uri
from pipeline.storage import Store
from pipeline.tracking.client import connect, unusable
from pipeline.tracking.runs import known_run_id


def metric_history(cfg: Config, run: Store, name: str) -> list[tuple[int, float]]:
    """Values of a metric by step; nothing for a run that MLflow never saw.

    Raises:
        MarlinError: MLflow does not answer, or has no such run.
    """
    from mlflow import MlflowException

    run_id = known_run_id(run)
    if run_id is None:
        return []
    try:
        history = connect(cfg).get_metric_history(run_id, name)
    except MlflowException as error:
        raise unusable(tracking_uri(cfg), error) from None
    return sorted({metric.step: metric.value for metric in history}.items())
