"""A linear probe that knows where things are: of what each place of the picture shows through a clip.

Pixels at fixed places tell a linear layer much of drawn faces, and the mean of all tokens forgets places: to be set
beside each other, both are given by place. There are more features than videos then, so a penalty holds the layer back.

Shapes: B windows, N tokens, D width of a token, V videos, F features, C outputs.
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from eval.features import Embedder
from eval.questions import Answered
from eval.scores import Probabilities, all_scores, headline

PENALTIES = (1.0, 10.0, 100.0, 1_000.0, 10_000.0)
"""Inverse strengths that are tried; the best on held-out people counts."""

_STEPS = 500


def over_time(embed_tokens: Embedder, tubelets: int) -> Embedder:
    """Mean and deviation of the tokens of every place over a window's time.

    Args:
        embed_tokens: gives all tokens (B, N, D), those of one time after those of the one before.
        tubelets: times of a window.

    Returns:
        (B, 2 N / tubelets D).
    """

    def embed(frames_BTHWC: NDArray[np.uint8]) -> NDArray[np.float32]:
        tokens_BND = embed_tokens(frames_BTHWC)
        windows, _, width = tokens_BND.shape
        return spread(tokens_BND.reshape(windows, tubelets, -1, width))

    return embed


def spread(values_BT: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean and deviation over the second axis, side by side: (B, F)."""
    parts = [found.reshape(len(values_BT), -1) for found in (values_BT.mean(1), values_BT.std(1))]
    return np.concatenate(parts, axis=1)


def probe_places(found: Answered, features_VF: NDArray[np.float32]) -> dict[str, float]:
    """Scores on the people of split "test" of logistic regressions, one for each output, as `marlin eval` counts them.

    Args:
        found: videos and their true answers; the penalty is chosen on those of split "val".
        features_VF: of the same videos.
    """
    train, held_out, scored = (found.of_split(split) for split in ("train", "val", "test"))
    truth_VC, known_VK = found.truth_VC, _directions(features_VF, train)
    tried = [_answers(known_VK, truth_VC, train, penalty) for penalty in PENALTIES]
    best_VC = max(tried, key=lambda told_VC: headline(found.question, truth_VC[held_out], told_VC[held_out]))
    return dict(all_scores(found.question, truth_VC[scored], best_VC[scored]))


def _directions(features_VF: NDArray[np.float32], train: NDArray[np.int64]) -> NDArray[np.float32]:
    """Standardised features in the directions in which the training videos differ, at most one for each of them.

    A penalised layer can use no others. Divided by the root of their number, features of any width mean the same to a
    penalty.
    """
    scaler = StandardScaler().fit(features_VF[train])
    scaled_VF = scaler.transform(features_VF) / features_VF.shape[1] ** 0.5
    known_VK: NDArray[np.float32] = PCA().fit(scaled_VF[train]).transform(scaled_VF)
    return known_VK


def _answers(
    known_VK: NDArray[np.float32], truth_VC: NDArray[np.int64], train: NDArray[np.int64], penalty: float
) -> Probabilities:
    """Probabilities of all videos, by what was learned from some."""
    columns = []
    for truth_V in truth_VC.T:
        if len(set(truth_V[train].tolist())) < 2:
            columns.append(truth_V[train][:1].repeat(len(known_VK)).astype(np.float64))
            continue
        layer = LogisticRegression(C=penalty, max_iter=_STEPS).fit(known_VK[train], truth_V[train])
        columns.append(layer.predict_proba(known_VK)[:, 1])
    return np.stack(columns, axis=1)
