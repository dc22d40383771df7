"""How a job stands, in SLURM's words whatever runs it."""

from dataclasses import dataclass

_ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT"}


@dataclass(frozen=True)
class JobState:
    """What SLURM or Kubernetes says of a job, or of one of an array.

    Attributes:
        state: SLURM's word, such as RUNNING; UNKNOWN where the job is forgotten and there are no accounts.
        reason: a word or sentence for why it waits or ended, empty where there is none.
        exit_status: of the batch script.
        restarts: how often it was requeued or started again.
    """

    state: str
    reason: str = ""
    exit_status: int = 0
    restarts: int = 0

    @property
    def ended(self) -> bool:
        """Whether it will not run again."""
        return self.state in _ENDED or self.state == "UNKNOWN"
