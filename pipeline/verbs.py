"""What each verb of the command line does. Stages are imported only when their verb runs."""

import shlex
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.load import load_config
from pipeline.config.schema import Config
from pipeline.errors import MarlinError
from pipeline.layout import dataset_store, run_store
from pipeline.storage import open_store
from pipeline.text import plural, size_text

if TYPE_CHECKING:
    from preprocess.inspect.repair import Repair


def demo(args: Namespace) -> None:
    """The whole pipeline on sample videos, ending with a report."""
    from pipeline.demo import run_demo

    run_demo(Path(args.output), args.overrides)


def run(args: Namespace) -> None:
    """All stages of a configuration, then the report beside the run."""
    from pipeline.local import run_stages

    cfg = _config(args)
    run_stages(cfg)
    _say(f"run {cfg.run.name} is done: {run_store(cfg).url}")


def preprocess(args: Namespace) -> None:
    """Raw videos to shards."""
    from preprocess.dataset.summary import preprocess_text
    from preprocess.stage import run_preprocess

    _say(preprocess_text(run_preprocess(_config(args)), _again(args)))


def train(args: Namespace) -> None:
    """Pretraining."""
    from train.launch import run_training

    cfg = _config(args)
    status = run_training(cfg)
    _say(f"trained {status.step} steps: {run_store(cfg).url}")


def evaluate(args: Namespace) -> None:
    """Evaluation of one published checkpoint."""
    import json

    from eval.job import run_eval

    results = run_eval(_config(args), checkpoint=args.checkpoint)
    _say(json.dumps({task: result["metrics"] for task, result in results.items()}, indent=1))


def report(args: Namespace) -> None:
    """One HTML page of one run, or of several side by side."""
    from eval.report.page import write_report

    configs = [load_config(source, args.overrides) for source in args.config]
    out = Path(args.output)
    write_report(configs, out)
    _say(f"report: {out.absolute()}")


def models_pull(args: Namespace) -> None:
    """Pinned model files into the user's cache."""
    from pipeline.assets import pull_models

    for name, path in pull_models().items():
        _say(f"{name}: {path}")


def samples_pull(args: Namespace) -> None:
    """Pinned sample videos into the user's cache."""
    from pipeline.assets import pull_samples

    for path in pull_samples().values():
        _say(str(path))


def doctor(args: Namespace) -> None:
    """What this machine has, what is missing, and the fix."""
    from pipeline.doctor import examine

    cfg = load_config(args.config, args.overrides) if args.config else None
    for finding in examine(cfg):
        _say(finding.line())


def dataset_verify(args: Namespace) -> None:
    """Every object against what commits it, every sample against the format."""
    from preprocess.inspect.repair import repair
    from preprocess.inspect.verify import verify

    cfg = _config(args)
    report = verify(dataset_store(cfg), deep=args.deep)
    if text := report.text(most=args.most):
        _say(text)
    if not report.problems:
        return
    count = f"{report.url}: {plural(len(report.problems), 'problem')}"
    again = f"`marlin preprocess -c {_again(args)}`"
    if not report.repairable():
        raise MarlinError(f"{count} that --repair can't mend: do what is said above")
    if not args.repair:
        raise MarlinError(f"{count}; to mend, `marlin dataset verify --repair -c {_again(args)}`, then {again}")
    done = repair(cfg, report)
    if done.dropped:
        _say(f"dropped {plural(len(done.dropped), 'unit')}: {again} makes {_it(done)} again")
    elif done.dataset:
        _say(f"dataset.json is {done.dataset}" + f": {again} puts it anew" * (done.dataset == "removed"))
    _refuse_kept(done)


def dataset_retry(args: Namespace) -> None:
    """Quarantined sources are tried again by the next `marlin preprocess`."""
    from preprocess.inspect.repair import retry

    done = retry(_config(args), args.reason)
    if done.dropped:
        units, sources = plural(len(done.dropped), "unit"), plural(len(done.sources), "quarantined source")
        _say(f"dropped {units} with {sources}: `marlin preprocess -c {_again(args)}` makes {_it(done)} again")
    elif not done.kept:
        _say(f"nothing to do: no source is quarantined as {' or '.join(args.reason)}")
    _refuse_kept(done)


def _it(done: "Repair") -> str:
    return "it" if len(done.dropped) == 1 else "them"


def _refuse_kept(done: "Repair") -> None:
    if done.kept:
        raise MarlinError(f"{plural(len(done.kept), 'unit')} can't be made again, the first: {done.kept[0]}")


def dataset_stats(args: Namespace) -> None:
    """What a dataset holds."""
    import json

    from preprocess.inspect.stats import dataset_stats, stats_text

    stats = dataset_stats(dataset_store(_config(args)), measured=args.samples)
    _say(json.dumps(stats, indent=1, ensure_ascii=False) if args.json else stats_text(stats))


def dataset_show(args: Namespace) -> None:
    """Sample frames with their regions, or clips under each masking strategy, as one PNG."""
    cfg, out = _config(args), Path(args.output)
    store, chosen = dataset_store(cfg), {"keys": args.key, "sources": args.source}
    if args.masks:
        from eval.mask_picture import show_masks

        drawn = show_masks(cfg, store, out, 1 if args.count is None else args.count, **chosen)
    else:
        from preprocess.inspect.show import show

        drawn = show(store, out, 8 if args.count is None else args.count, **chosen)
    _say(f"wrote {args.output}: {plural(drawn, 'sample')}")


def dataset_append(args: Namespace) -> None:
    """Extend a dataset by new videos."""
    from preprocess.dataset.summary import append_text
    from preprocess.stage import append

    _say(append_text(append(_config(args)), _again(args)))


def dataset_remove(args: Namespace) -> None:
    """Take sources out of a dataset for good."""
    from preprocess.dataset.removal import remove_sources
    from preprocess.dataset.summary import removal_text

    store = dataset_store(_config(args))
    effect = remove_sources(store, args.source, args.identity, args.reason, dry_run=args.dry_run)
    _say(removal_text(effect, args.dry_run))


def dataset_stage(args: Namespace) -> None:
    """A verified copy of a dataset in a folder."""
    from pipeline.staging import stage

    target = open_store(args.dest)
    done = stage(dataset_store(_config(args)), target, parallel=args.parallel)
    new = f"{plural(done.new_files, 'file')}, {size_text(done.new_size)}, copied"
    _say(f"staged {plural(done.files, 'file')}, {size_text(done.size)} ({new}): set data.dataset={target.url}")


def dataset_order(args: Namespace) -> None:
    """What a rank will read and how it will be masked, as JSON lines."""
    from train.data.preview import order_lines

    place = {"nodes": args.nodes, "world": args.world, "rank": args.rank}
    for line in order_lines(_config(args), **place, steps=args.steps):
        _say(line)


def _config(args: Namespace) -> Config:
    return load_config(args.config, args.overrides)


def _again(args: Namespace) -> str:
    """The configuration as it was given, to be typed again."""
    return shlex.join([args.config, *args.overrides])


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
