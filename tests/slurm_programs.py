"""Stand-ins for SLURM's commands and ours, which write down how they were called; batch scripts run for real."""

import os
import subprocess
from pathlib import Path

from hypothesis import strategies as st

# Names that bash, YAML or SLURM may take for something else.
TEXT = st.text(st.sampled_from("ab ü'\"$;`&|<>(){}[]*?~#!%=,:-\\\n"), min_size=1, max_size=12)

# Options of srun are all of the form --name=value or --name.
_SRUN = """#!/bin/bash
printf '%s\\0' "$@" >>"$RECORD/srun"
while [[ $1 == --* ]]; do shift; done
exec "$@"
"""
_MARLIN = """#!/bin/bash
for ((node = 0; node < ${RAY_NODES:-0}; )); do
  node=$(grep -aoc start <(tr '\\0' '\\n' <"$RECORD/ray"))
done
printf '%s\\0' "$@" >"$RECORD/marlin"
env -0 >"$RECORD/environment"
exit "${MARLIN_EXIT:-0}"
"""
_SCONTROL = """#!/bin/bash
if [[ $1 == show ]]; then
  [[ -n ${SLURM_DOWN:-} ]] && { echo "Unable to contact slurm controller" >&2; exit 1; }
  for job in "$RECORD/job-${@: -1}"; do
    [[ -f $job ]] || { echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1; }
    cat "$job"
  done
else
  printf '%s\\0' "$@" >>"$RECORD/scontrol"
fi
"""
# Numbers jobs from 11 on; refuses the script that is named.
_SBATCH = """#!/bin/bash
printf '%s\\0' "$@" >>"$RECORD/sbatch"
printf '\\n' >>"$RECORD/sbatch"
[[ -z ${REFUSED:-} || $* != *$REFUSED* ]] || { echo "sbatch: error: Invalid account" >&2; exit 1; }
echo "$((10 + $(wc -l <"$RECORD/sbatch")))"
"""
_SCANCEL = """#!/bin/bash
printf '%s\\0' "$@" >>"$RECORD/scancel"
"""
_RAY = """#!/usr/bin/env python3
import os, signal, socket, sys
ignores = signal.getsignal(signal.SIGUSR2) == signal.SIG_IGN
with open(os.environ["RECORD"] + "/ray", "a") as record:
    record.write("\\0".join([*sys.argv[1:], f"ignores USR2: {ignores}"]) + "\\0")
given = dict(option.split("=", 1) for option in sys.argv[1:] if "=" in option)
if "--head" in sys.argv:
    listening = socket.create_server(("127.0.0.1", int(given["--port"])))
signal.pause()
"""
_APPTAINER = """#!/bin/bash
printf '%s\\0' "$@" >>"$RECORD/apptainer"
shift
while [[ $1 == --* ]]; do
  if [[ $1 == --bind ]]; then shift; fi
  shift
done
shift
exec "$@"
"""
_HOSTNAME = """#!/bin/bash
echo 127.0.0.1
"""
_PROGRAMS = {
    "srun": _SRUN,
    "marlin": _MARLIN,
    "scontrol": _SCONTROL,
    "sbatch": _SBATCH,
    "scancel": _SCANCEL,
    "ray": _RAY,
    "apptainer": _APPTAINER,
    "hostname": _HOSTNAME,
}


class Programs:
    """A folder of stand-ins, and what they wrote down."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.bin = folder / "bin"
        self.bin.mkdir(parents=True)
        for name, text in _PROGRAMS.items():
            (self.bin / name).write_text(text)
            (self.bin / name).chmod(0o755)
        self.environment = {
            "PATH": f"{self.bin}:{os.environ['PATH']}",
            "RECORD": str(folder),
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NUM_NODES": "1",
            "TMPDIR": str(folder),
        }
        self.job("7", "RUNNING")

    def job(self, number: str, state: str, reason: str = "None", exit_code: str = "0:0", restarts: int = 0) -> None:
        """What scontrol says of a job."""
        line = f"JobId={number} JobName=x JobState={state} Reason={reason} Restarts={restarts} ExitCode={exit_code}\n"
        (self.folder / f"job-{number}").write_text(line)

    def run(self, script: str, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
        """A batch script as slurmd starts it."""
        path = self.folder / "script"
        path.write_text(script)
        return subprocess.run(
            ["bash", str(path), *arguments],
            cwd=self.folder,
            env={**self.environment, **variables},
            capture_output=True,
            text=True,
            timeout=60,
        )

    def words(self, name: str) -> list[str]:
        """What a program was called with, all calls in a row."""
        path = self.folder / name
        return path.read_text().split("\0")[:-1] if path.exists() else []

    def variables(self) -> dict[str, str]:
        """The environment of `marlin`."""
        return dict(word.split("=", 1) for word in self.words("environment"))
