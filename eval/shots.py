"""Part of the labels to learn from: stratified subsets of which each smaller one lies in the larger ones.

Rows are shared out by iterative stratification (Sechidis, Tsoumakas and Vlahavas, 2011), whose published package also
installs a package `tests` over that of others.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]


def nested_subsets(truth_VC: NDArray[np.int64], shares: Sequence[float], seed: int) -> dict[float, Rows]:
    """Rows of a subset for each share, with the answers as common as in all rows.

    Args:
        truth_VC: answers, 0 or 1.
        shares: of the rows, above 0 to 1; at least one row is taken.
        seed: another one gives other subsets.

    Returns:
        Ascending rows by share; those of a smaller share are among those of every larger one.
    """
    dice, rows = np.random.default_rng(seed), np.arange(len(truth_VC))
    subsets = {}
    for share in sorted(set(shares), reverse=True):
        count = max(1, round(share * len(truth_VC)))
        rows = np.sort(rows[_stratified(truth_VC[rows], count, dice)])
        subsets[share] = rows
    return subsets


def _stratified(truth_VC: NDArray[np.int64], count: int, dice: np.random.Generator) -> Rows:
    """So many of the rows. The rarest answer is shared out first: for it there is the least choice."""
    # A column of "none of these" keeps rows without any answer in proportion too.
    answers = np.column_stack([truth_VC, truth_VC.sum(1) == 0]).astype(bool)
    wanted = answers.sum(0) * (count / len(answers))
    waiting, chosen = dice.permutation(len(answers)), list[int]()
    while len(waiting) and len(chosen) < count:
        there = answers[waiting].sum(0)
        rarest = int(np.where(there > 0, there, len(answers) + 1).argmin())
        having = answers[waiting, rarest]
        # A fraction of a row is one as often as it says: an answer too rare for the share is in some of the subsets.
        quota = max(0, int(wanted[rarest] + dice.random()))
        taken = waiting[having][: min(quota, count - len(chosen))]
        chosen.extend(taken.tolist())
        wanted -= answers[taken].sum(0)
        waiting = waiting[~having]
    left = np.setdiff1d(np.arange(len(answers)), chosen)
    return np.array(chosen + dice.permutation(left)[: count - len(chosen)].tolist(), np.int64)
