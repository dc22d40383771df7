"""Faults as a bad network and a busy S3 server make them, drawn with a seed."""

import random
from collections.abc import Callable

from proxy import Fault, Request, http_error

_BUSY = Fault(http_error(503, "SlowDown"))
_BROKEN = Fault(http_error(500, "InternalError"))


def storm(seed: int, share: float, stall: float) -> Callable[[Request], Fault | None]:
    """Faults for a share of all requests: bursts of errors, resets in mid-part, cut answers, stalls of some seconds."""
    draw = random.Random(seed)
    burst: list[Fault] = []

    def fault(request: Request) -> Fault | None:
        if burst:
            return burst.pop()
        if draw.random() > share:
            return None
        kind = draw.randrange(6)
        if kind == 0:
            burst.extend(draw.choices([_BUSY, _BROKEN], k=draw.randrange(2, 6)))
            return burst.pop()
        return [
            Fault(),
            Fault(reset_after=draw.randrange(1, 3 << 20)),
            Fault(cut_after=draw.randrange(1, 3000)),
            Fault(stall=stall if draw.random() < 0.1 else 0.3),
            Fault(stall_answer=stall if draw.random() < 0.1 else 0.3),
        ][kind - 1]

    return fault
