"""Where launchers of several nodes meet, as torchrun's own variables tell it."""

import pytest

from pipeline.errors import UsageError
from train.meeting import Meeting, named_meeting, speaks

NODE = {"PET_NNODES": "2", "PET_NODE_RANK": "1", "PET_MASTER_ADDR": "first.set"}


def test_launchers_meet_at_the_first() -> None:
    assert named_meeting(NODE) == Meeting(2, 1, "first.set", 29500)
    assert named_meeting({**NODE, "PET_MASTER_PORT": "99"}) == Meeting(2, 1, "first.set", 99)


@pytest.mark.parametrize("environment", [{}, {**NODE, "PET_NNODES": "1"}])
def test_one_launcher_alone_meets_nobody(environment: dict[str, str]) -> None:
    assert named_meeting(environment) is None


@pytest.mark.parametrize("missing", ["PET_NODE_RANK", "PET_MASTER_ADDR"])
def test_what_is_missing_is_named(missing: str) -> None:
    with pytest.raises(UsageError, match=missing):
        named_meeting({name: value for name, value in NODE.items() if name != missing})


@pytest.mark.parametrize("name", ["PET_NNODES", "PET_NODE_RANK", "PET_MASTER_PORT"])
def test_what_is_no_number_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="must be numbers"):
        named_meeting({**NODE, name: "1:4"})


@pytest.mark.parametrize(("environment", "first"), [(NODE, False), ({**NODE, "PET_NODE_RANK": "0"}, True), ({}, True)])
def test_one_command_tells_how_it_went(environment: dict[str, str], first: bool) -> None:
    assert speaks(environment) == first
