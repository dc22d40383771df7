"""Saying early what will be read: bytes a few batches ahead, whole shards many steps ahead."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

from pipeline.config.schema import DataConfig
from train.data.access import ShardAccess
from train.data.plan import Clip
from train.data.shards import clip_spans

_GROWTH = 2
"""Groups that the view widens by with each one read: a first batch is not held up by planning far ahead."""


def look_ahead(
    groups: Iterable[Sequence[Clip]], access: ShardAccess, data: DataConfig, *, near: int, far: int
) -> Iterator[Sequence[Clip]]:
    """The groups as they come, while `access` is told what follows.

    Args:
        groups: clips that are read together, in the order of reading.
        access: what will read them.
        data: which frames a clip takes.
        near: groups whose bytes are announced before they are given out.
        far: groups whose shards are wanted before.
    """
    source = iter(groups)
    waiting: deque[Sequence[Clip]] = deque()
    view, announced = near + 1, 0
    while True:
        for group in islice(source, max(0, view - len(waiting))):
            waiting.append(group)
            if far:
                access.want(dict.fromkeys(clip.sample.shard for clip in group))
        for group in islice(waiting, announced, near + 1):
            access.announce(span for clip in group for span in clip_spans(clip.sample, clip.frames(data)))
            announced += 1
        if not waiting:
            return
        announced -= 1
        view = max(near + 1, min(view + _GROWTH, far + 1))
        yield waiting.popleft()
