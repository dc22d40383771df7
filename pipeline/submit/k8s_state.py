"""What the status of a Kubernetes object says, in the words of `JobState`: pure functions."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.submit.state import JobState

_Status = Mapping[str, Any]
# The condition that decides, and what it means; the first that is true counts.
_CONDITIONS = {
    "Failed": "FAILED",
    "FailureTarget": "FAILED",
    "Complete": "COMPLETED",
    "Completed": "COMPLETED",
    "Suspended": "PENDING",
}
_RAY = {"Complete": "COMPLETED", "Failed": "FAILED", "ValidationFailed": "FAILED", "Running": "RUNNING"}


def state_of(kind: str, status: _Status, after: Sequence[str]) -> JobState:
    """How a RayJob, JobSet or Job stands.

    Args:
        kind: of the object.
        status: the object's, empty where no controller has seen it yet.
        after: stages that its pod `wait` waits for.
    """
    if kind == "RayJob":
        return _ray_job(status)
    restarts = int(status.get("restarts") or 0)
    for name, word in _CONDITIONS.items():
        for condition in status.get("conditions") or []:
            if condition["type"] == name and condition["status"] == "True":
                return JobState(word, _reason(condition), restarts=restarts)
    if kind == "Job":
        running = bool(status.get("ready"))
        return JobState("RUNNING") if running else JobState("PENDING", "Pods" if status else "Controller")
    return _job_set(status, after, restarts)


def _job_set(status: _Status, after: Sequence[str], restarts: int) -> JobState:
    parts = {part["name"]: part for part in status.get("replicatedJobsStatus") or []}
    waiting = parts.pop("wait", None)
    if any(part.get("ready") for part in parts.values()):
        return JobState("RUNNING", restarts=restarts)
    if waiting is not None and not waiting.get("succeeded"):
        return JobState("PENDING", f"waits for {' and '.join(after)}", restarts=restarts)
    return JobState("PENDING", "Pods" if status else "Controller", restarts=restarts)


def _ray_job(status: _Status) -> JobState:
    """KubeRay says in `jobDeploymentStatus` how the cluster and the job stand, in `jobStatus` how Ray's job ended."""
    word = str(status.get("jobDeploymentStatus") or "")
    restarts = int(status.get("failed") or 0)
    state = _RAY.get(word, "PENDING")
    if state == "COMPLETED" and status.get("jobStatus") != "SUCCEEDED":  # stopped counts as failed
        state = "FAILED"
    if state == "FAILED":
        restarts = max(0, restarts - 1)
        return JobState(state, _reason(status), restarts=restarts)
    return JobState(state, "" if state in ("COMPLETED", "RUNNING") else word or "Controller", restarts=restarts)


def _reason(said: Mapping[str, Any]) -> str:
    """`Reason: what more there is to say`, on one line."""
    parts = [str(said.get(name) or "") for name in ("reason", "message")]
    return " ".join(": ".join(part for part in parts if part).split())
