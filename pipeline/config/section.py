"""What all sections of the schema are made of."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field


def _no_switch(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("should be a number, not true or false")
    return value


def one_line(value: str) -> str:
    """A text without control characters."""
    if not value.isprintable():
        raise ValueError("holds a newline or another control character: leave it out")
    return value


Number = BeforeValidator(_no_switch)
Share = Annotated[float, Number, Field(ge=0.0, le=1.0)]
Momentum = Annotated[float, Number, Field(ge=0.0, lt=1.0)]
PositiveInt = Annotated[int, Number, Field(gt=0)]
NonNegativeInt = Annotated[int, Number, Field(ge=0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
Line = Annotated[str, AfterValidator(one_line)]


class Section(BaseModel):
    """Base of all sections: immutable, no unknown keys, no infinities."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class NetworkConfig(Section):
    """How ranks talk across GPUs and nodes (docs/slurm.md says when to change it)."""

    interface: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]*$")] = Field(
        "", description="Network interface for Ray, gloo and NCCL's sockets, such as ib0; empty: their own choice."
    )
    p2p: bool = Field(True, description="Direct copies between the GPUs of a node; false: through host memory.")
    infiniband: bool = Field(True, description="InfiniBand where there is some; false: sockets.")
