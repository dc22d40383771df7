"""SLURM's variables, told as torchrun tells them."""

import pytest

from pipeline.errors import UsageError
from train.meeting import Meeting, speaks
from train.slurm import adopt_slurm, first_host, launchers_meeting

STEP = {
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    "SLURM_STEP_NODELIST": "gpu[03-04]",
    "SLURM_PROCID": "3",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_ID": "1234",
    "SLURM_STEP_ID": "5",
}


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("one", "one"),
        ("one,two", "one"),
        ("gpu[03-04]", "gpu03"),
        ("gpu[7,9-12],other", "gpu7"),
        ("a[01-02]-ib,b", "a01-ib"),
        ("rack-1-n5,rack-1-n6", "rack-1-n5"),
    ],
)
def test_the_first_node_of_a_list(nodes: str, first: str) -> None:
    assert first_host(nodes) == first


def test_a_step_of_several_tasks_is_a_world() -> None:
    environment = dict(STEP)
    adopt_slurm(environment)
    port = environment.pop("MASTER_PORT")
    assert environment == STEP | {
        "RANK": "3",
        "WORLD_SIZE": "4",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "gpu03",
    }
    beside = STEP | {"SLURM_STEP_ID": "6"}
    adopt_slurm(beside)
    assert 20000 <= int(port) < 30000
    assert beside["MASTER_PORT"] != port


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_JOB_ID": "1", "SLURM_PROCID": "0", "SLURM_NTASKS": "4"},  # a batch script
        STEP | {"SLURM_STEP_NUM_TASKS": "1"},
        STEP | {"RANK": "0"},  # torchrun under srun
    ],
)
def test_nothing_else_is(environment: dict[str, str]) -> None:
    after = dict(environment)
    adopt_slurm(after)
    assert after == environment


def test_what_the_user_set_stays() -> None:
    environment = STEP | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "1"}
    adopt_slurm(environment)
    assert (environment["MASTER_ADDR"], environment["MASTER_PORT"]) == ("10.0.0.1", "1")


@pytest.mark.parametrize("tasks", ["3,1", "1,3", "3(x2)"])
def test_uneven_tasks_are_refused(tasks: str) -> None:
    with pytest.raises(UsageError, match="--ntasks-per-node"):
        adopt_slurm(STEP | {"SLURM_STEP_TASKS_PER_NODE": tasks})


def test_a_list_without_a_node_is_refused() -> None:
    with pytest.raises(UsageError, match="names no node"):
        first_host("")


LAUNCHERS = STEP | {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "1(x2)", "SLURM_NODEID": "1"}


def test_launchers_of_several_nodes_meet_at_the_first() -> None:
    meeting = launchers_meeting(LAUNCHERS)
    assert meeting is not None
    assert (meeting.nodes, meeting.node, meeting.host) == (2, 1, "gpu03")
    assert 20000 <= meeting.port < 30000
    chosen = launchers_meeting(LAUNCHERS | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "99"})
    assert chosen == Meeting(2, 1, "10.0.0.1", 99)


@pytest.mark.parametrize("environment", [{}, LAUNCHERS | {"SLURM_STEP_NUM_NODES": "1"}])
def test_one_launcher_alone_meets_nobody(environment: dict[str, str]) -> None:
    assert launchers_meeting(environment) is None


def test_several_launchers_a_node_are_refused() -> None:
    with pytest.raises(UsageError, match="--ntasks-per-node=1"):
        launchers_meeting(STEP)


@pytest.mark.parametrize(
    ("environment", "first"),
    [({}, True), (STEP, False), (STEP | {"SLURM_PROCID": "0"}, True), (STEP | {"RANK": "0"}, True), (LAUNCHERS, False)],
)
def test_one_command_tells_how_it_went(environment: dict[str, str], first: bool) -> None:
    assert speaks(environment) is first
