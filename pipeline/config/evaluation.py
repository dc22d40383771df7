"""The section `eval` of the schema."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.section import NonNegativeInt, Number, PositiveInt, Section, Share

PROTOCOLS = ("linear", "attentive", "knn", "finetune")
QUESTIONS = ("attributes", "appearance", "action", "emotion", "sentiment7", "sentiment2", "deepfake")
TASKS = (
    "track-probe",
    "reconstruction",
    *(f"{asked}-{protocol}" for asked in QUESTIONS for protocol in PROTOCOLS),
    "lipsync",
)
"""What `eval.tasks` may name; a labelled task is a question and how its answer is learned."""

LipEncoder = Literal["wav2lip", "vit", "videomae", "marlin"]
"""Face encoders of the lip-sync generator: the rows of the paper's table 5."""


class EvalDatasets(Section):
    """URLs of datasets with labels; empty: that of the run itself."""

    attributes: str = Field("", description="Dataset of the facial attributes (CelebV-HQ).")
    emotion: str = Field("", description="Dataset of the emotions (CMU-MOSEI).")
    sentiment: str = Field("", description="Dataset of the sentiment (CMU-MOSEI).")
    deepfake: str = Field("", description="Dataset of real and manipulated videos (FaceForensics++).")
    lipsync: str = Field("", description="Dataset of talking faces with their sound (LRS2).")


class ProbeConfig(Section):
    """Linear probing, as the official code does it: Adam (0.5, 0.9), rate halved when the loss stops falling."""

    epochs: PositiveInt = Field(2000, description="Most passes over the training videos; most probes end before.")
    batch: PositiveInt = Field(32, description="Videos of one step.")
    lr: Annotated[float, Number, Field(gt=0)] = Field(1e-4, description="Learning rate at the start.")
    neighbors: PositiveInt = Field(20, description="Neighbours that a k-NN answer is the mean of.")


class FinetuneConfig(Section):
    """Fine-tuning of the encoder, and attentive probing of the frozen one: clips through the network at every step."""

    epochs: PositiveInt = Field(2000, description="Most passes over the training videos, one random clip of each.")
    batch: PositiveInt = Field(32, description="Clips of one step, of all processes together.")
    lr: Annotated[float, Number, Field(gt=0)] = Field(1e-4, description="Learning rate at the start.")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="Arithmetic; weights stay in fp32.")
    processes: PositiveInt | None = Field(None, description="Processes of this machine; null: one a GPU, or one.")
    threads: PositiveInt = Field(2, description="Reading and decoding threads of a process.")
    recompute: bool = Field(False, description="Recompute activations in the backward pass, to save memory.")


class SyncConfig(Section):
    """Networks that tell whether lips go with sound: the expert that the generator learns from, and the judge of it."""

    expert: str = Field(
        "", description="Weights of the expert, also Wav2Lip's lipsync_expert.pth; empty: trained here."
    )
    judge: str = Field("", description="Weights of the network that LSE is measured with; empty: trained here.")
    channels: PositiveInt = Field(32, description="Channels of the first layers of those trained here.")
    steps: PositiveInt = Field(100_000, description="Steps of those trained here.")
    batch: Annotated[int, Number, Field(gt=0, multiple_of=8)] = Field(
        64, description="Moments of lips and sound of one step, eight of each face."
    )
    lr: Annotated[float, Number, Field(gt=0)] = Field(1e-3, description="Learning rate.")


class LipSyncConfig(Section):
    """Lip synchronisation after Wav2Lip; rates, weights of the losses and batches are those of its paper."""

    encoders: Annotated[tuple[LipEncoder, ...], Field(min_length=1)] = Field(
        ("marlin",),
        description="Face encoders to compare: convolutions, a fresh ViT, one of VideoMAE's weights, the checkpoint's.",
    )
    videomae: str = Field("", description="Weights of VideoMAE for the encoder of that name.")
    size: PositiveInt = Field(96, description="Side of the faces of the encoder wav2lip; the others take the model's.")
    channels: PositiveInt = Field(16, description="Channels of the generator's first layers.")
    steps: PositiveInt = Field(100_000, description="Steps of each generator.")
    batch: PositiveInt = Field(80, description="Frames of one step, in whole clips.")
    lr: Annotated[float, Number, Field(gt=0)] = Field(1e-4, description="Learning rate of generator and critic.")
    sync_weight: Annotated[Share, Field(lt=1)] = Field(0.03, description="Weight of the expert's loss.")
    sync_from: Annotated[float, Number, Field(ge=0)] = Field(
        0.75, description="The expert's loss on held-out clips below which it counts; before, faces are learned alone."
    )
    gan_weight: Annotated[Share, Field(lt=1)] = Field(
        0.0, description="Weight of the loss of a visual critic (0.07 in the paper); 0: no critic."
    )
    judge_every: PositiveInt = Field(3000, description="Steps between two looks at held-out clips.")
    threads: PositiveInt = Field(2, description="Reading and decoding threads.")
    inception: str = Field("", description="TorchScript file of Inception-v3's features for FID; empty: no FID.")
    sync: SyncConfig = Field(default_factory=SyncConfig)


class FeaturesConfig(Section):
    """How `marlin features` makes features; each key is an option of the command, too."""

    windows: Literal["all", "official"] = Field(
        "all", description="Windows of the whole video, or those of marlin-pytorch, on its own frames."
    )
    rate: PositiveInt | None = Field(None, description="Frames between two of a window; null: as trained.")
    stride: PositiveInt = Field(16, description="Frames of a window between the begins of two windows.")
    reduction: Literal["none", "mean", "max"] = Field("none", description="What is taken over a face's windows.")
    keep_seq: bool = Field(False, description="All tokens of a window, not the norm of their mean.")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="Of weights and arithmetic.")
    batch: PositiveInt = Field(8, description="Windows at once.")


class EvalConfig(Section):
    tasks: tuple[Literal[TASKS], ...] = Field(  # type: ignore[valid-type]
        ("track-probe", "reconstruction"), description="What is measured on a checkpoint."
    )
    datasets: EvalDatasets = Field(default_factory=EvalDatasets)
    batch: PositiveInt = Field(8, description="Windows of one forward pass.")
    window_stride: PositiveInt = Field(16, description="Frames between two sliding windows.")
    seed: NonNegativeInt = Field(0, description="Seed of the probes and of the fixed masks.")
    label_shares: Annotated[tuple[Annotated[float, Number, Field(gt=0, le=1)], ...], Field(min_length=1)] = Field(
        (1.0,), description="Shares of the training labels to learn from: 0.01, 0.1, 0.5 and 1 in the paper."
    )
    repeats: PositiveInt = Field(1, description="Times that each share is drawn and learned from, with other seeds.")
    bootstrap: NonNegativeInt = Field(1000, description="Draws of the confidence intervals; 0: none.")
    subgroups: tuple[str, ...] = Field(
        (), description="Labels to give results apart by: a class label, or <group>/<name> of a binary one."
    )
    emotion_threshold: Annotated[float, Number, Field(ge=0, lt=3)] = Field(
        0.0, description="An emotion is there above this intensity of 0 to 3."
    )
    sentiment_zero: Literal["positive", "negative", "left-out"] = Field(
        "positive", description="What a sentiment of 0 is among two classes."
    )
    max_unlabelled: Share = Field(0.1, description="Share of videos without the label above which a task fails.")
    probe: ProbeConfig = Field(default_factory=ProbeConfig)
    finetune: FinetuneConfig = Field(default_factory=FinetuneConfig)
    lipsync: LipSyncConfig = Field(default_factory=LipSyncConfig)
    poll_seconds: Annotated[float, Number, Field(gt=0)] = Field(
        30.0, description="Seconds between two looks of `marlin eval --watch` for new checkpoints."
    )
    lease_seconds: Annotated[float, Number, Field(ge=1)] = Field(
        120.0, description="Seconds after which the work of an evaluation job that died passes to another."
    )
    features: FeaturesConfig = Field(default_factory=FeaturesConfig)
