"""MLflow: what a run is, what it measures and what it makes, in one MLflow run that outlives its jobs.

Values go to a spool on local disk (`spool`); a thread (`delivery`) hands them to the server (`session`). What it could
not hand over goes to the run's folder with each checkpoint and at the end.
"""

from pipeline.tracking.client import usable_uri
from pipeline.tracking.delivery import deliver_left_behind
from pipeline.tracking.history import metric_history
from pipeline.tracking.system import SystemMetrics
from pipeline.tracking.tracker import Tracker, flatten, open_tracker

__all__ = ["SystemMetrics", "Tracker", "deliver_left_behind", "flatten", "metric_history", "open_tracker", "usable_uri"]
