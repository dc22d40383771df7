"""Which items make which global batch, of one dataset or of several mixed in fixed proportions.

Each global batch takes the next equal share of every stream. Weights are whole numbers: a *round* of sum(weights)
positions of a stream holds so many items of each dataset, spread about evenly. Each stream begins elsewhere in its
round, where the share of the stream before it ends, so that a global batch is a piece of rounds laid end to end, and
has its proportions too. Each dataset goes through epochs of its own. All of it has a closed form, so the position of a
batch is one integer.
"""

from collections.abc import Sequence
from itertools import accumulate

from train.data.order import Order


class BatchOrder:
    """The endless order of global batches. Items are numbered through: those of the second dataset follow the first's.

    Attributes:
        streams: number of canonical streams, the same for each dataset.
    """

    def __init__(self, orders: Sequence[Order], weights: Sequence[int], global_batch: int) -> None:
        """Lay out the orders of one or more datasets.

        Args:
            orders: of each dataset, over equally many streams.
            weights: items of each dataset in a round.
            global_batch: items of a global batch.
        """
        self.streams = orders[0].streams
        self._orders, self._weights = tuple(orders), tuple(weights)
        self._first = [0, *accumulate(order.items for order in orders)]
        self._share = global_batch // self.streams
        self._round = spread(weights)
        # How many of each dataset stand before each place of the round.
        self._before = [[0] * len(weights)]
        for dataset in self._round:
            self._before.append([count + (dataset == other) for other, count in enumerate(self._before[-1])])

    def batch(self, step: int, part: slice = slice(None)) -> list[tuple[int, int]]:
        """The (item, epoch) pairs of global batch `step`, counted from 0, or of a part of it.

        A batch is the share of stream 0, of stream 1, …
        """
        places = range(self.streams * self._share)[part]
        return [self._at(place // self._share, step * self._share + place % self._share) for place in places]

    def items(self, part: slice) -> list[int]:
        """All items of the streams that a part of every global batch is taken from."""
        streams = range(part.start // self._share, -(-part.stop // self._share))
        offered = zip(self._first, self._orders, strict=False)
        return [first + item for first, order in offered for stream in streams for item in order.dealt(stream)]

    def _at(self, stream: int, position: int) -> tuple[int, int]:
        """The item at a position of a stream, and its dataset's epoch."""
        begin = stream * self._share % len(self._round)
        turn, place = divmod(begin + position, len(self._round))
        dataset = self._round[place]
        taken = turn * self._weights[dataset] + self._before[place][dataset] - self._before[begin][dataset]
        item, epoch = self._orders[dataset].at(stream, taken)
        return self._first[dataset] + item, epoch


def spread(weights: Sequence[int]) -> list[int]:
    """Which dataset each place of a round belongs to.

    The k-th of a dataset's w places is due at the share (k + ½) / w of the round; ties go to the earlier dataset.
    """
    due = [((2 * turn + 1) / weight, dataset) for dataset, weight in enumerate(weights) for turn in range(weight)]
    return [dataset for _, dataset in sorted(due)]
