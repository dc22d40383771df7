"""Submissions of a run, written down in its folder: `submissions/<id>.json`, created once, never changed."""

import json
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Literal

from pipeline.errors import MarlinError
from pipeline.storage import Store
from pipeline.storage.manifest import to_json
from pipeline.storage.single import create_alone

_PREFIX = "submissions/"


@dataclass(frozen=True)
class Job:
    """A job of a submission.

    Attributes:
        stage: what it does.
        number: SLURM's, of the whole array where it is one; or the object's name.
        after: what it waits for: as sbatch takes it, or stages.
        script: path of the batch script.
        log: path of its log, with SLURM's replacement symbols; or the command that shows it.
        kind: of the object, on Kubernetes.
    """

    stage: str
    number: str
    after: list[str]
    script: str
    log: str
    kind: str = ""


@dataclass(frozen=True)
class Submission:
    """Jobs submitted together.

    Attributes:
        name: of the record, which begins with the time in UTC.
        folder: path of scripts, configuration and logs on SLURM.
        jobs: in the order of the stages.
        scheduler: what runs them.
        context: of the kubeconfig, empty for the current one.
        namespace: of the objects on Kubernetes.
    """

    name: str
    folder: str
    jobs: list[Job]
    scheduler: Literal["slurm", "kubernetes"] = "slurm"
    context: str = ""
    namespace: str = ""


def new_name() -> str:
    """Sorts by time, and is no other submission's."""
    return f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def write_submission(run: Store, submission: Submission) -> None:
    """Write a submission down in the run's folder."""
    create_alone(run, f"{_PREFIX}{submission.name}.json", to_json({"schema": 1, **asdict(submission)}))


def submissions(run: Store) -> Iterator[Submission]:
    """Those of a run, oldest first.

    Raises:
        MarlinError: one is damaged.
    """
    for item in run.list(_PREFIX):
        try:
            content = json.loads(run.read(item.key))
            content.pop("schema")
            yield Submission(**content | {"jobs": [Job(**job) for job in content["jobs"]]})
        except (ValueError, KeyError, TypeError) as error:
            raise MarlinError(f"{run.url}/{item.key} is no record of a submission: delete it ({error})") from None
