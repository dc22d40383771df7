"""The one schema of a whole run. Every section is frozen and refuses unknown keys.

``docs/configuration.md`` is generated from the field descriptions here.
"""

from typing import Annotated, Any, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import Field, field_validator, model_validator

from pipeline.config.evaluation import EvalConfig
from pipeline.config.launch import LaunchConfig
from pipeline.config.section import Momentum, Name, NonNegativeInt, Number, PositiveInt, Section, Share
from pipeline.config.support import Cell, Offload, Precision, Stage, refusal


class RunConfig(Section):
    name: Name = Field("run", description="Name of the run; its folder is <storage.root>/runs/<name>.")


class StorageConfig(Section):
    root: str = Field("marlin-data", description="Path, file:// or s3://bucket/prefix that holds datasets and runs.")


class CorpusConfig(Section):
    kind: Literal["folder", "ytf", "celebv-hq", "mosei", "ffpp", "lrs2", "list"] = Field(
        "folder", description="Layout of the raw corpus, see docs/corpora.md."
    )
    path: str = Field(
        "", description="Folder or s3:// prefix of the raw videos; for kind 'list' the CSV or Parquet file."
    )
    name: Name = Field("corpus", description="Name of the dataset made from it: <storage.root>/datasets/<name>.")
    annotations: str = Field(
        "", description="Label file, relative to corpus.path, absolute or s3://; empty: where the layout has it."
    )
    splits: str = Field(
        "",
        description="Folder of train, val and test lists, or one JSON file of them; empty: where the layout has them.",
    )
    compression: Literal["raw", "c0", "c23", "c40"] = Field("c23", description="Compression of FaceForensics++.")
    parts: tuple[str, ...] = Field(
        (),
        description="Parts to take (ffpp: original and manipulations; lrs2: main, pretrain); empty: the standard ones.",
    )
    frame_rate: Annotated[float, Field(gt=0)] | None = Field(
        None, description="Frames per second of folders of images; null: 24 for ytf, 25 elsewhere."
    )
    max_missing: Share = Field(
        0.5,
        description="Share of a label file's rows, or of the split lists' entries, without a video that is tolerated.",
    )
    max_unlabelled: Share = Field(
        0.5, description="Share of the videos without a row in the label file, or without one of its labels, likewise."
    )


class ModelFilesConfig(Section):
    """Paths of network files; empty means the pinned file from the user's cache (`marlin models pull`)."""

    detector: str = Field("", description="SCRFD-style ONNX file, run by insightface.")
    landmarks: str = Field("", description="MediaPipe face_landmark.tflite (468 points).")
    person: str = Field("", description="MediaPipe selfie_segmentation.tflite (person mask).")
    hair: str = Field("", description="Hair segmentation ONNX; empty uses the named colour heuristic instead.")
    farl: str = Field("", description="FaRL-LaPa TorchScript file; parser=farl needs it.")
    bisenet: str = Field("", description="BiSeNet ONNX file, CelebAMask-HQ classes; parser=bisenet needs it.")


class PreprocessConfig(Section):
    fps: Annotated[float, Field(gt=0)] | None = Field(None, description="Resample to this frame rate; null keeps it.")
    size: PositiveInt = Field(224, description="Side of the square crop in pixels.")
    patch: PositiveInt = Field(16, description="Side of the patches that region tags are stored for, in pixels.")
    margin: Annotated[float, Field(ge=0.0, le=3.0)] = Field(
        0.0, description="Context added on each side of the larger box side, as a share of it (0 = the paper's crop)."
    )
    detector: Literal["scrfd", "none"] = Field(
        "scrfd", description="Face detection backend; 'none': the videos show nothing but one face."
    )
    parser: Literal["landmarks", "farl", "bisenet", "given"] = Field(
        "landmarks",
        description="Face parsing backend (docs/parsers.md); 'given': label maps are each video's second video stream.",
    )
    parse_batch: PositiveInt = Field(16, description="Pictures of one call of the parser; the same for all units.")
    models: ModelFilesConfig = Field(default_factory=ModelFilesConfig)
    detect_every: PositiveInt = Field(10, description="Frames between two runs of the detector; tracking fills in.")
    detect_threshold: Share = Field(0.5, description="Lowest detection score.")
    min_face: PositiveInt = Field(32, description="Smallest side of a tracked face, in pixels of the source video.")
    min_sharpness: Annotated[float, Field(ge=0)] = Field(
        0.02, description="Least sharpness of a face (docs/faces.md has the measure); the default drops hopeless blur."
    )
    max_yaw: Annotated[float, Field(gt=0, le=90)] | None = Field(
        None, description="Drop faces turned sideways more than this, in degrees; null keeps all."
    )
    max_pitch: Annotated[float, Field(gt=0, le=90)] | None = Field(
        None, description="Drop faces turned up or down more than this, in degrees; null keeps all."
    )
    min_track: Annotated[float, Field(ge=0)] = Field(0.0, description="Shortest track in seconds.")
    near_duplicates: bool = Field(
        True, description="Drop samples of a recording seen before; not set, false for ffpp, whose forgeries are such."
    )
    clip_frames: PositiveInt = Field(64, description="Frames of one sample.")
    min_frames: PositiveInt = Field(32, description="Shorter runs of frames are dropped and counted.")
    holdout: Share = Field(0.0, description="Last share of every track that becomes split 'val' instead of 'train'.")
    holdout_identities: Share = Field(
        0.0, description="Share of the identities held out whole as split 'val', by a stable hash of their names."
    )
    label_maps: bool = Field(True, description="Also store full-resolution label maps (<key>.labels.png).")
    audio: bool | None = Field(None, description="Store the sound of each sample; null: as the corpus is used (LRS2).")
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = Field(90, description="JPEG quality of stored frames.")
    unit_sources: PositiveInt | None = Field(
        None, description="Sources of one unit of work at most; null: one, in large corpora up to 64."
    )
    unit_seconds: PositiveInt = Field(
        600, description="Seconds of video of one unit at most; longer videos are cut into spans."
    )
    max_failed: Share = Field(0.5, description="Share of quarantined sources above which the stage fails.")
    workers: PositiveInt | None = Field(None, description="Worker actors; null is one per CPU core of the cluster.")
    network_actors: NonNegativeInt = Field(
        0, description="Actors that hold detector and parser for all workers; 0: each worker holds its own."
    )
    network_gpus: Annotated[float, Number, Field(ge=0)] = Field(
        0.0, description="GPU share of a network actor; 0 runs it on the CPU."
    )
    ray_address: str = Field("local", description="'local' starts a cluster; 'auto', ray://… join one; 'none': no Ray.")
    object_store_mb: PositiveInt = Field(256, description="Shared memory of a local Ray cluster, in MiB.")

    @model_validator(mode="after")
    def _consistent(self) -> "PreprocessConfig":
        if self.size % self.patch:
            raise ValueError(f"preprocess.size={self.size} is not a multiple of preprocess.patch={self.patch}")
        if self.min_frames > self.clip_frames:
            raise ValueError("preprocess.min_frames is larger than preprocess.clip_frames")
        if self.network_gpus and not self.network_actors:
            raise ValueError("preprocess.network_gpus needs preprocess.network_actors=1 or more")
        if self.network_actors and self.ray_address == "none":
            raise ValueError("preprocess.network_actors are Ray's: set them to 0 with preprocess.ray_address=none")
        if self.parser == "given" and self.uses_networks:
            raise ValueError(
                "preprocess.parser=given takes label maps of whole pictures: set preprocess.detector=none as well"
            )
        if not self.uses_networks:
            self._check_without_networks()
        return self

    def _check_without_networks(self) -> None:
        if self.parser != "given":
            raise ValueError(
                f"preprocess.parser={self.parser} needs the face mesh, which preprocess.detector=none does not fit: "
                "set preprocess.parser=given, or preprocess.detector=scrfd"
            )
        for key in ("max_yaw", "max_pitch"):
            if getattr(self, key) is not None:
                raise ValueError(
                    f"preprocess.{key} needs the face mesh, which preprocess.detector=none does not fit: remove it"
                )
        if self.margin:
            raise ValueError(
                "preprocess.margin needs a picture around the face: with preprocess.detector=none set it to 0"
            )
        if self.network_actors:
            raise ValueError(
                "preprocess.network_actors: there are no networks with preprocess.detector=none: set it to 0"
            )

    @property
    def uses_networks(self) -> bool:
        """Whether faces are found and parsed by networks, not given with the videos."""
        return self.detector != "none"


class MaskConfig(Section):
    strategy: Literal["fasking", "fasking-opposite", "tube", "frame", "random"] = Field(
        "fasking", description="Which cubes are hidden."
    )
    ratio: Annotated[float, Field(ge=0.05, le=0.95)] = Field(0.9, description="Share of hidden cubes.")
    rounding: Literal["official", "tube"] = Field(
        "official",
        description="'official' rounds the visible count once a clip, 'tube' in each tubelet frame.",
    )


class MixPart(Section):
    dataset: Annotated[str, Field(min_length=1)] = Field(description="URL of a dataset.")
    weight: Annotated[PositiveInt, Field(le=10000)] = Field(description="Clips taken of it in a round.")


class DataConfig(Section):
    dataset: str = Field("", description="URL of the dataset; empty: <storage.root>/datasets/<corpus.name>.")
    mix: tuple[MixPart, ...] = Field(
        (),
        description="Several datasets to train on instead, each {dataset: URL, weight: N}: N clips of every round.",
    )
    source: Literal["shards", "synthetic"] = Field("shards", description="'synthetic' measures the trainer alone.")
    epoch_unit: Literal["source", "sample"] = Field("sample", description="One clip a source (the paper), or a sample.")
    frames: PositiveInt = Field(16, description="Frames of a training clip.")
    stride: PositiveInt = Field(2, description="Distance of its frames in the video.")
    flip: bool = Field(False, description="Random horizontal flip, eye regions swapped with it.")
    normalize: Literal["none", "imagenet"] = Field(
        "none", description="Scaling of pixels inside the model, before its first layer; the target stays in [0, 1]."
    )
    decoder: Literal["dali", "opencv"] = Field("dali", description="JPEG decoder; 'opencv': no DALI, same pixels.")
    decode_device: Literal["cpu", "mixed"] = Field(
        "cpu", description="Where DALI decodes JPEG; 'mixed' is the GPU that trains (docs/loading.md)."
    )
    keep_gb: Annotated[float, Number, Field(ge=0)] = Field(
        0.0, description="GB of decoded frames that a rank keeps in memory; for small datasets, data.decoder=opencv."
    )
    threads: PositiveInt = Field(2, description="Reading and decoding threads of a rank.")
    prefetch: PositiveInt = Field(2, description="Batches decoded ahead.")
    streams: PositiveInt | None = Field(None, description="Canonical streams; null picks the largest that fits.")
    read_ahead: PositiveInt = Field(4, description="Batches whose bytes are read from remote shards ahead of decoding.")
    cache_dir: str = Field("", description="Node cache of remote shards; empty: the user's cache folder.")
    cache_gb: Annotated[float, Number, Field(ge=0)] | None = Field(
        None, description="Most GB in the node cache; null: what the disk has free, less a reserve; 0: no cache."
    )
    fetch_ahead: NonNegativeInt = Field(64, description="Steps ahead of use at which shards are fetched to the cache.")
    fetches: PositiveInt = Field(4, description="Shards that a rank fetches to the cache at the same time.")
    connections: PositiveInt = Field(16, description="Requests of a rank at a time for clips that are not cached.")
    mask: MaskConfig = Field(default_factory=MaskConfig)

    @model_validator(mode="after")
    def _consistent(self) -> "DataConfig":
        if self.decoder == "opencv" and self.decode_device == "mixed":
            raise ValueError("data.decoder=opencv decodes on the CPU: set data.decode_device=cpu")
        if self.keep_gb and self.decoder != "opencv":
            raise ValueError("data.keep_gb keeps what OpenCV decodes: set data.decoder=opencv, or data.keep_gb=0")
        if self.mix and self.dataset:
            raise ValueError("set one of data.dataset and data.mix")
        urls = [part.dataset.rstrip("/") for part in self.mix]
        for url in urls:
            if urls.count(url) > 1:
                raise ValueError(f"data.mix names {url} twice: give it one entry, with the sum of the weights")
        return self


class ModelConfig(Section):
    size: Literal["micro", "tiny", "mini", "small", "base", "large"] = Field(
        "base", description="Width and depth of encoder and decoder; small, base and large are the paper's."
    )
    patch: PositiveInt = Field(16, description="Side of a cube in pixels (a cube is two frames deep).")
    init: str = Field(
        "", description="Weights that a fresh run starts from: URL of a file (docs/weights.md) or run; empty: random."
    )
    checkpoint_activations: bool = Field(False, description="Recompute activations in the backward pass.")
    compile: bool = Field(
        False, description="Compile the generator with torch.compile: minutes at the start; a CPU needs a C++ compiler."
    )


class CriticConfig(Section):
    weight: Annotated[float, Field(ge=0)] = Field(0.01, description="λ_W of the adversarial loss; 0 trains no critic.")
    steps: PositiveInt = Field(1, description="Critic updates a generator update.")
    lipschitz: Literal["none", "clip", "gradient-penalty"] = Field("none", description="Lipschitz control.")
    clip: Annotated[float, Field(gt=0)] = Field(0.01, description="Weight bound under lipschitz=clip.")
    penalty: Annotated[float, Field(ge=0)] = Field(10.0, description="Weight under lipschitz=gradient-penalty.")


class TrainConfig(Section):
    steps: PositiveInt | None = Field(None, description="Optimiser steps; exactly one of steps and epochs.")
    epochs: PositiveInt | None = Field(None, description="Epochs; exactly one of steps and epochs.")
    global_batch: PositiveInt = Field(64, description="Clips of one optimiser step, over all ranks.")
    micro_batch: PositiveInt = Field(16, description="Clips of one forward pass of a rank.")
    zero_stage: Stage = Field(1, description="DeepSpeed ZeRO stage of the generator.")
    precision: Precision = Field(
        "fp32", description="Arithmetic of the networks (docs/training.md); fp16 scales its losses."
    )
    offload_optimizer: Offload = Field(
        "none", description="'cpu' keeps the generator's 32-bit weights and momenta in host memory, from stage 1 on."
    )
    base_lr: Annotated[float, Field(gt=0)] = Field(1.5e-4, description="Peak learning rate at a global batch of 256.")
    min_lr: Annotated[float, Field(ge=0)] = Field(1e-5, description="Final learning rate at a global batch of 256.")
    warmup: Share = Field(0.02, description="Share of the training spent warming up (the paper: 40 of 2000 epochs).")
    betas: tuple[Momentum, Momentum] = Field((0.9, 0.95), description="Momenta of AdamW.")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="Weight decay of AdamW.")
    normalize_target: bool = Field(False, description="Per-cube normalised pixels as the reconstruction target.")
    seed: NonNegativeInt = Field(0, description="Seed of weights, order, clips and masks.")
    checkpoint_every: PositiveInt = Field(1000, description="Steps between two published checkpoints.")
    keep_last: PositiveInt = Field(3, description="Newest published checkpoints that stay.")
    keep_every: NonNegativeInt = Field(
        0, description="Checkpoints of steps that this divides stay for ever; a multiple of checkpoint_every; 0: none."
    )
    keep_best: Annotated[str, Field(pattern=r"^([a-z-]+/\w+)?$")] = Field(
        "", description="The best checkpoint by this metric of an evaluation stays, such as `reconstruction/mse`."
    )
    keep_best_is: Literal["min", "max"] = Field("min", description="Which value of keep_best is the best.")
    keep_unevaluated: NonNegativeInt = Field(
        0, description="Newest checkpoints without all results of eval.tasks that stay; 0: no evaluation is expected."
    )
    log_every: PositiveInt = Field(1, description="Steps between two metric lines.")
    val_every: PositiveInt = Field(1000, description="Steps between two validation passes.")
    val_clips: NonNegativeInt = Field(64, description="Held-out clips of a validation pass; 0 switches it off.")
    launcher: Literal["torchrun", "none"] = Field("torchrun", description="'none' trains in this process.")
    processes: PositiveInt = Field(1, description="Ranks started on this machine by the launcher.")
    accept_dataset_change: bool = Field(False, description="Resume although the dataset is no longer the same.")
    start_timeout: PositiveInt = Field(300, description="Seconds to wait at the start until all ranks are there.")
    hang_timeout: PositiveInt = Field(
        1800,
        description="Seconds without progress after which all ranks print their stacks and the run ends. "
        "Storage that takes no checkpoint is tried for half as long.",
    )
    max_nonfinite: PositiveInt = Field(
        10, description="Updates in a row left out because a loss or gradient was not finite that end the run."
    )
    grace: PositiveInt = Field(120, description="Seconds allowed for saving after a stop signal.")

    @model_validator(mode="after")
    def _one_length(self) -> "TrainConfig":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("set exactly one of train.steps and train.epochs")
        if self.min_lr > self.base_lr:
            raise ValueError(f"train.min_lr={self.min_lr:g} is above train.base_lr={self.base_lr:g}: lower it")
        if reason := refusal(self.cell):
            raise ValueError(reason)
        if self.keep_every % self.checkpoint_every:
            raise ValueError(
                f"train.keep_every={self.keep_every} is no multiple of train.checkpoint_every={self.checkpoint_every}: "
                "most of its steps would have no checkpoint"
            )
        return self

    @property
    def cell(self) -> Cell:
        """How the engines are run."""
        return Cell(self.zero_stage, self.precision, self.offload_optimizer)


class TrackingConfig(Section):
    uri: str = Field(
        "",
        description="MLflow tracking URI; empty: SQLite in <storage.root>, which must be on a local disk then; "
        "'none': no MLflow.",
    )
    experiment: str = Field("marlin", description="MLflow experiment.")
    parent: str = Field("", description="MLflow run that this one is shown below; `marlin sweep` sets it.")
    system_seconds: Annotated[float, Field(ge=0)] = Field(
        60.0, description="Seconds between two points of processors, memory, disk, network, GPUs of a node; 0: none."
    )

    @field_validator("uri")
    @classmethod
    def _no_secret(cls, uri: str) -> str:
        # The configuration is stored with every dataset, checkpoint and result.
        parts = urlsplit(uri)
        web = parts.scheme in ("http", "https")
        if parts.password or (web and parts.username):
            raise ValueError("holds a password: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD instead")
        if any(name.lower() in ("password", "pwd") for name, _ in parse_qsl(parts.query)):
            raise ValueError("holds a password: give it to the database's driver (PGPASSWORD, ~/.my.cnf …) instead")
        return uri


class Config(Section):
    """A whole run: where the data comes from, what is trained, how it is measured."""

    run: RunConfig = Field(default_factory=RunConfig)
    storage: StorageConfig = Field(default_factory=StorageConfig)
    corpus: CorpusConfig = Field(default_factory=CorpusConfig)
    preprocess: PreprocessConfig = Field(default_factory=PreprocessConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    critic: CriticConfig = Field(default_factory=CriticConfig)
    train: TrainConfig
    eval: EvalConfig = Field(default_factory=EvalConfig)
    tracking: TrackingConfig = Field(default_factory=TrackingConfig)
    launch: LaunchConfig = Field(default_factory=LaunchConfig)

    @model_validator(mode="before")
    @classmethod
    def _forgeries_are_no_copies(cls, given: Any) -> Any:
        """A forgery moves as its original does: a search for copies would take it for one."""
        corpus, preprocess = (given.get(name) or {} for name in ("corpus", "preprocess")) if given else ({}, {})
        if not isinstance(corpus, dict) or not isinstance(preprocess, dict) or corpus.get("kind") != "ffpp":
            return given
        return {**given, "preprocess": {"near_duplicates": False, **preprocess}}

    @model_validator(mode="after")
    def _consistent(self) -> "Config":
        span = (self.data.frames - 1) * self.data.stride + 1
        if span > self.preprocess.min_frames:
            raise ValueError(
                f"a clip of data.frames={self.data.frames} at data.stride={self.data.stride} spans {span} frames, "
                f"more than preprocess.min_frames={self.preprocess.min_frames}: raise that, or shorten the clip"
            )
        if self.preprocess.size % self.model.patch or self.model.patch % self.preprocess.patch:
            raise ValueError(
                f"model.patch={self.model.patch} must divide preprocess.size={self.preprocess.size} "
                f"and be a multiple of preprocess.patch={self.preprocess.patch}"
            )
        if self.data.mix and self.train.epochs is not None:
            raise ValueError("a data.mix has no epochs of its own: set train.steps instead of train.epochs")
        if self.model.compile and self.train.zero_stage == 3:
            raise ValueError(
                "model.compile=true was not tried at train.zero_stage=3, whose weights come and go: use 1 or 2"
            )
        task = self.train.keep_best.partition("/")[0]
        if task and task not in self.eval.tasks:
            raise ValueError(f"train.keep_best={self.train.keep_best} needs the task in eval.tasks, or another metric")
        if self.data.frames % 2:
            raise ValueError(f"data.frames={self.data.frames} must be even: a cube is two frames deep")
        return self
