"""A process that decodes ends when one step takes too long, and not when all of them together do."""

import subprocess
import sys
from pathlib import Path

import pytest
from drawn_videos import counting_frames, write_video

_CHILD = """
import sys, time
from pathlib import Path
from preprocess.decode.stall import limit_steps
from preprocess.decode.video import read_frames
limit_steps(3)
for frame in read_frames(Path(sys.argv[1])):
    time.sleep(300 if frame.index == int(sys.argv[2]) else 0.5)
time.sleep(4)
print("done")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("stuck_at", "status"), [(5, 1), (99, 0)])
def test_a_step_that_does_not_end_ends_the_process(tmp_path: Path, stuck_at: int, status: int) -> None:
    video = write_video(tmp_path / "a.mp4", counting_frames(10))
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, str(video), str(stuck_at)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stdout) == (status, "" if status else "done\n")
    assert ("Timeout" in done.stderr) == bool(status)


_WAITING = """
import sys, time
from preprocess.decode.stall import begin_step, end_steps, limit_steps, others_step
limit_steps(2)
with others_step():
    time.sleep(3)
begin_step()
with others_step():
    time.sleep(4)
if sys.argv[1] == "goes on":
    end_steps()
time.sleep(5)
print("done")
"""


@pytest.mark.slow
@pytest.mark.parametrize(("then", "status"), [("goes on", 0), ("hangs", 1)])
def test_time_that_another_process_takes_does_not_count(then: str, status: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WAITING, then],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (done.returncode, done.stdout) == (status, "" if status else "done\n")
