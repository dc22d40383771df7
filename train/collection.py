"""Python's garbage collector at fixed steps: one that runs on its own stops each rank at another time, and all wait."""

import gc

_EVERY = 100


class PeriodicCollection:
    """Switches automatic collection off for the length of a `with`, and sets aside what lives at its start."""

    def __enter__(self) -> "PeriodicCollection":
        gc.collect()
        gc.freeze()
        gc.disable()
        return self

    def __exit__(self, *error: object) -> None:
        gc.enable()
        gc.unfreeze()

    def step(self, done: int) -> None:
        """Collect, if this step is one of those."""
        if done % _EVERY == 0:
            gc.collect()
