"""Peak memory of the whole stage at 1x and 8x of a corpus: the workers, the driver and Ray itself.

    python -m benchmarks.preprocess.memory

Memory is the proportional set size, summed over the process tree every tenth of a second; shared memory counts once.
"""

import argparse
import tempfile
import threading
from pathlib import Path

import psutil

from benchmarks.preprocess.corpus import make_config, make_corpus
from benchmarks.results import publish
from preprocess.stage import run_preprocess


class PeakMemory:
    """Largest memory of this process and its descendants while the context is open, in bytes."""

    def __init__(self) -> None:
        self.whole = self.driver = self.worker = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        me = psutil.Process()
        while not self._stop.wait(0.1):
            sizes = {}
            for process in [me, *me.children(recursive=True)]:
                try:
                    sizes[process] = (process.memory_full_info().pss, " ".join(process.cmdline()[:1]))
                except psutil.Error:
                    continue
            self.whole = max(self.whole, sum(size for size, _ in sizes.values()))
            self.driver = max(self.driver, sizes.get(me, (0, ""))[0])
            workers = [size for size, name in sizes.values() if name.startswith("ray::")]
            self.worker = max([self.worker, *workers])


def main() -> None:
    """Measures, prints, and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=8, help="how much larger the second corpus is (default: 8)")
    parser.add_argument("-o", "--output", type=Path, help="folder for the dated result")
    args = parser.parse_args()
    figures: dict[str, object] = {}
    whole: list[int] = []
    with tempfile.TemporaryDirectory(prefix="marlin-bench-") as folder:
        for copies in (1, args.times):
            corpus = make_corpus(Path(folder, f"in{copies}"), copies)
            with PeakMemory() as peak:
                summary = run_preprocess(make_config(corpus, Path(folder, f"out{copies}"), workers=2), progress=False)
            whole.append(peak.whole)
            figures |= {
                f"{copies}x: videos": summary.counts["sources"],
                f"{copies}x: face frames": summary.counts["frames"],
                f"{copies}x: all processes, MiB": peak.whole >> 20,
                f"{copies}x: largest worker, MiB": peak.worker >> 20,
                f"{copies}x: driver, MiB": peak.driver >> 20,
            }
    figures[f"{args.times}x / 1x"] = round(whole[1] / whole[0], 3)
    publish("preprocess-memory", "python -m benchmarks.preprocess.memory", figures, args.output)


if __name__ == "__main__":
    main()
