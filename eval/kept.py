"""Networks that tasks leave beside their results, under names with their own hashes.

Published before the result that names them, they are never those of another one: of a job that was killed, or asked
something else.
"""

import hashlib

from pipeline.checkpoints import Checkpoint
from pipeline.storage import Store

WEIGHTS = "weights"
"""Field of a result that names the files of its networks."""


def publish_weights(run: Store, checkpoint: Checkpoint, task: str, what: str, data: bytes) -> str:
    """Store a network of a task; returns the name of its file, for the result to name it."""
    name = f"{task}.{hashlib.sha256(data).hexdigest()[:12]}.{what}.safetensors"
    run.write(weights_key(checkpoint, name), data)
    return name


def weights_key(checkpoint: Checkpoint, name: str) -> str:
    """Where a file of that name lies in the run's folder."""
    return f"evals/{checkpoint.name}/{name}"
