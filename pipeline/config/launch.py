"""The section `launch` of the schema: how runs are started, here and on clusters."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from pipeline.config.k8s import K8sConfig
from pipeline.config.section import Line, NetworkConfig, NonNegativeInt, PositiveInt, Section, one_line

_Mount = Annotated[str, Field(pattern=r"^[^:,]+(:[^:,]+)?$"), AfterValidator(one_line)]


class ResourcesConfig(Section):
    """What a stage asks SLURM for."""

    nodes: PositiveInt = Field(1, description="Nodes.")
    gpus: NonNegativeInt = Field(0, description="GPUs of a node.")
    cpus: PositiveInt = Field(8, description="Cores of a rank in training, of a node elsewhere.")
    memory: Annotated[str, Field(pattern=r"^(\d+[KMGT]?)?$")] = Field(
        "", description="Memory of a node, such as '64G'; '0': all of it; empty: what the site gives."
    )
    minutes: PositiveInt = Field(1440, description="Time limit of a job in minutes; a requeued job has it again.")
    partition: Line = Field("", description="Partition of this stage; empty: launch.slurm.partition.")
    constraint: Line = Field("", description="Features of its nodes; empty: launch.slurm.constraint.")


class TrainResources(ResourcesConfig):
    """What training asks for: ranks are its GPUs, or `train.processes` a node without any."""

    gpus: NonNegativeInt = Field(1, description="GPUs of a node, one rank each; 0: train.processes ranks on the CPU.")


class EvalResources(ResourcesConfig):
    """What evaluation asks for, and when it runs."""

    gpus: NonNegativeInt = Field(1, description="GPUs of a job.")
    nodes: Literal[1] = Field(1, description="Nodes of a job: one.")
    when: Literal["watch", "after"] = Field(
        "watch", description="'watch' evaluates beside the training, as checkpoints appear; 'after' when it is done."
    )
    jobs: PositiveInt = Field(1, description="Jobs that share the checkpoints, as an array.")


class ContainerConfig(Section):
    """The container that commands run in; the batch script itself runs outside."""

    kind: Literal["none", "pyxis", "apptainer"] = Field("none", description="What starts containers at the site.")
    image: Line = Field("", description="What --container-image of pyxis, or apptainer exec, takes.")
    mounts: tuple[_Mount, ...] = Field(
        (), description="Folders to mount, SRC or SRC:DST, beside the submission's own: data, storage, scratch."
    )


class SlurmConfig(Section):
    """What `marlin submit slurm` writes into batch scripts."""

    partition: Line = Field("", description="Partition; empty: the site's default.")
    account: Line = Field("", description="Account to charge; empty: the user's default.")
    qos: Line = Field("", description="Quality of service; empty: the default.")
    constraint: Line = Field("", description="Features that nodes must have.")
    gpu_type: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]*$")] = Field(
        "", description="Type of the GPUs as the site names it, such as a6000; empty: any."
    )
    preprocess: ResourcesConfig = Field(default_factory=ResourcesConfig)
    train: TrainResources = Field(default_factory=TrainResources)
    eval: EvalResources = Field(default_factory=EvalResources)
    launcher: Literal["task", "node"] = Field(
        "task",
        description="What srun starts for training: each rank, or 'node': torchrun on each node.",
    )
    slack: PositiveInt = Field(
        300,
        description="Seconds before the end of its time that a job is told to save; more than train.grace + 30.",
    )
    requeues: NonNegativeInt = Field(50, description="How often a job that stopped early requeues itself at most.")
    container: ContainerConfig = Field(default_factory=ContainerConfig)
    network: NetworkConfig = Field(default_factory=NetworkConfig)
    setup: tuple[Line, ...] = Field(
        (), description="Lines of shell that begin each script, as they stand, such as `module load …`; no secrets."
    )
    bin: Line = Field("", description="Folder of `marlin` and `ray` on the nodes; empty: this one, or the container's.")
    folder: Line = Field(
        "", description="Shared folder for scripts and logs; empty: <storage.root>/slurm, which must be a path then."
    )
    cache: Line = Field("", description="Folder of model files on the nodes (MARLIN_CACHE); empty: as submitted.")
    scratch: Line = Field(
        "", description="Disk of the node for temporary files; empty: $MARLIN_SCRATCH there, else $TMPDIR, else /tmp."
    )
    templates: Line = Field("", description="Folder with templates of your own; empty: those of this installation.")


class LaunchConfig(Section):
    threads: PositiveInt | None = Field(None, description="Threads of a process; null: cores / processes.")
    scratch: str = Field("", description="Node-local folder for checkpoints on their way; empty: the user's cache.")
    slurm: SlurmConfig = Field(default_factory=SlurmConfig)
    k8s: K8sConfig = Field(default_factory=K8sConfig)
