"""A real SLURM cluster of two nodes on this machine, in one folder, for as long as a test needs it."""

import os
import re
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "sinfo", "scancel")
_READY_S = 60.0
_CONFIG = """\
ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SlurmdTimeout=10
KillWait=30
MinJobAge=3600
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
SlurmdParameters=config_overrides
SlurmctldParameters=preempt_send_user_signal
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName=DEFAULT CPUs=2 RealMemory=4000 Gres=gpu:a6000:2 State=UNKNOWN
NodeName=n1 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[1]}
NodeName=n2 NodeHostname=localhost NodeAddr=127.0.0.1 Port={ports[2]}
PartitionName=debug Nodes=n[1-2] Default=YES PriorityTier=1 GraceTime=60 PreemptMode=REQUEUE
PartitionName=urgent Nodes=n[1-2] PriorityTier=10 PreemptMode=OFF
"""
# Devices that are no GPUs: SLURM hands them out, and nothing finds a driver behind them.
_GRES = """\
AutoDetect=off
NodeName=n[1-2] Name=gpu Type=a6000 File={folder}/gpu[0-1]
"""


@dataclass(frozen=True)
class Job:
    """What SLURM says of a job."""

    state: str
    exit_status: int
    restarts: int


@dataclass(frozen=True)
class Cluster:
    """Commands against the running cluster."""

    environment: Mapping[str, str]

    def submit(self, folder: Path, *arguments: str | Path, **variables: str) -> str:
        """`sbatch --parsable` in ``folder``; returns the job's number."""
        command = ["sbatch", "--parsable", *map(str, arguments)]
        return _run(command, {**self.environment, **variables}, folder).strip()

    def command(self, *arguments: str) -> str:
        """Any SLURM command; returns what it prints."""
        return _run(arguments, self.environment)

    def job(self, number: str) -> Job:
        """State, exit status and restarts of a job."""
        text = self.command("scontrol", "show", "job", "--oneliner", number)
        fields = dict(re.findall(r"(\S+?)=(\S*)", text))
        return Job(fields["JobState"], int(fields["ExitCode"].split(":")[0]), int(fields["Restarts"]))

    def wait(self, number: str, *states: str, timeout: float = 240.0) -> Job:
        """Until the job is in one of ``states``; fails with the job's record after ``timeout`` seconds."""
        wait_until(lambda: self.job(number).state in states, f"job {number} {'/'.join(states)}", timeout)
        return self.job(number)

    def cancel_all(self) -> None:
        """Until no job is left, pending, running or ending."""
        self.command("scancel", "--user=root")
        wait_until(lambda: not self.command("squeue", "--noheader").strip(), "no job left", timeout=90)


def wait_until(condition: Callable[[], bool], what: str, timeout: float = _READY_S) -> None:
    """Poll ``condition``.

    Raises:
        TimeoutError: it stays false for ``timeout`` seconds.
    """
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"after {timeout:.0f} s, still not: {what}")
        time.sleep(0.2)


def missing_programs() -> list[str]:
    """What must be installed before `run_cluster` works."""
    return [name for name in _PROGRAMS if _program(name) is None]


@contextmanager
def run_cluster(folder: Path) -> Iterator[Cluster]:
    """munged, slurmctld and two slurmd in the foreground, until the end of the block. Needs root."""
    config = folder / "slurm.conf"
    config.write_text(_CONFIG.format(folder=folder, ports=_free_ports(3)))
    (folder / "gres.conf").write_text(_GRES.format(folder=folder))
    for number in range(2):
        os.mknod(folder / f"gpu{number}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    for name in ("state", "spool"):
        (folder / name).mkdir()
    environment = {**os.environ, "SLURM_CONF": str(config)}
    cluster = Cluster(environment)
    with ExitStack() as daemons:
        _munge(folder, daemons)
        daemons.enter_context(_daemon(folder, environment, "slurmctld", "-D", "-c"))
        for node in ("n1", "n2"):
            daemons.enter_context(_daemon(folder, environment, "slurmd", "-D", "-N", node))
        wait_until(lambda: _idle_nodes(cluster) == 2, f"two idle nodes (logs in {folder})")
        try:
            yield cluster
        finally:
            cluster.cancel_all()


def _run(command: Sequence[str], environment: Mapping[str, str], folder: Path | None = None) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, cwd=folder)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def _munge(folder: Path, daemons: ExitStack) -> None:
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    files = [f"--{name}-file={folder}/munge.{name}" for name in ("pid", "log", "seed")]
    socket_path = folder / "munge.socket"
    # --force: the folder of a test lets no other user in, which munged only warns about then.
    options = ["--foreground", "--force", f"--key-file={key}", f"--socket={socket_path}", *files]
    daemons.enter_context(_daemon(folder, os.environ, "munged", *options))
    wait_until(socket_path.exists, "munged's socket")


@contextmanager
def _daemon(folder: Path, environment: Mapping[str, str], name: str, *arguments: str) -> Iterator[None]:
    log = folder / f"{name}-{len(list(folder.glob('*.out')))}.out"
    with log.open("wb") as out:
        process = subprocess.Popen([_program(name) or name, *arguments], env=environment, stdout=out, stderr=out)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _idle_nodes(cluster: Cluster) -> int:
    try:
        return (
            cluster.command("sinfo", "--noheader", "--Node", "--partition=debug", "--format=%T").split().count("idle")
        )
    except RuntimeError:  # the controller is not up yet
        return 0


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
