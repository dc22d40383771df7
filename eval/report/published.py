"""What the MARLIN paper published, as reference rows for what is measured here.

Only numbers whose source could be read are here. They are on the real corpora, with the paper's protocol, and are
comparable to nothing else.
"""

from collections.abc import Mapping
from dataclasses import dataclass

PAPER = "Cai et al., MARLIN, CVPR 2023, arXiv 2211.06627"
NOT_STATED = "not stated"


@dataclass(frozen=True)
class Source:
    """Where a published number was read: whose list, what it says there, and the page."""

    name: str
    what: str
    url: str


ARCHIVE = Source(
    "Papers with Code",
    "results listed for the paper",
    "https://www.paperswithcode.com/paper/marlin-masked-autoencoder-for-facial-video",
)
LIST = Source(
    "Wizwand",
    "benchmarks listed for the paper",
    "https://www.wizwand.com/paper/68fa6ecc1e209131cea42360",
)


@dataclass(frozen=True)
class Published:
    """A published row.

    Attributes:
        table: number of the paper's table.
        asked: title of the `Asked` that it answers.
        model: as the source names it.
        dataset: the corpus it was measured on.
        scores: by the names of `eval.scores`; shares and areas from 0 to 1.
        protocol: how the answer was learned; the source does not say whether by a linear probe or by fine-tuning.
        source: where the numbers were read.
    """

    table: int
    asked: str
    model: str
    dataset: str
    scores: Mapping[str, float]
    protocol: str = NOT_STATED
    source: Source = ARCHIVE


@dataclass(frozen=True)
class Answer:
    """Where an answer is found in the results of a question.

    Attributes:
        question: which tasks have it.
        prefix: of its scores, where it is a group of the question's outputs.
        remark: how its learning differs from that of the paper, if it does.
    """

    question: str
    prefix: str = ""
    remark: str = ""


@dataclass(frozen=True)
class Asked:
    """One block of a table, and where its answers are found."""

    title: str
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper: its number, what it is about, the corpus, and its blocks."""

    number: int
    title: str
    corpus: str
    asked: tuple[Asked, ...]

    def published(self, asked: Asked) -> list[Published]:
        """The reference rows of a block."""
        return [row for row in PUBLISHED if row.table == self.number and row.asked == asked.title]


TABLES = (
    PaperTable(
        2,
        "Facial attributes",
        "CelebV-HQ",
        (
            Asked("Appearance", (Answer("appearance"), Answer("attributes", "appearance_", "of all attributes"))),
            Asked("Action", (Answer("action"), Answer("attributes", "action_", "of all attributes"))),
        ),
    ),
    PaperTable(
        3,
        "Emotion and sentiment",
        "CMU-MOSEI",
        (
            Asked("Emotion", (Answer("emotion"),)),
            Asked("Sentiment, seven classes", (Answer("sentiment7"),)),
            Asked("Sentiment, two classes", (Answer("sentiment2"),)),
        ),
    ),
    PaperTable(4, "Deepfake detection", "FaceForensics++", (Asked("Real or manipulated", (Answer("deepfake"),)),)),
)
"""Tables whose tasks can be measured here, in the paper's order."""


def _mosei(asked: str, model: str, accuracy: float) -> Published:
    return Published(3, asked, model, "CMU-MOSEI", {"accuracy": accuracy})


def _forensics(model: str, auc: float) -> Published:
    return Published(4, "Real or manipulated", model, "FaceForensics++", {"auc": auc})


PUBLISHED = (
    Published(2, "Appearance", "MARLIN", "CelebV-HQ", {"accuracy": 0.9390, "auc": 0.9561}),
    Published(2, "Action", "MARLIN", "CelebV-HQ", {"accuracy": 0.9548, "auc": 0.9406}),
    _mosei("Emotion", "MARLIN (ViT-S)", 0.8038),
    _mosei("Emotion", "MARLIN (ViT-B)", 0.8060),
    _mosei("Sentiment, two classes", "MARLIN (ViT-S)", 0.7269),
    _mosei("Sentiment, two classes", "MARLIN (ViT-B)", 0.7370),
    _mosei("Sentiment, two classes", "MARLIN (ViT-L)", 0.7483),
    _forensics("MARLIN (ViT-S)", 0.8863),
    _forensics("MARLIN (ViT-B)", 0.9305),
    _forensics("MARLIN (ViT-L)", 0.9377),
)

LIP_SYNC = Published(5, "Lip synchronisation", "MARLIN", "LRS2", {"lse_d": 7.127}, source=LIST)
"""The only number of table 5 whose source could be read; LSE-D is a distance, lower is better."""
