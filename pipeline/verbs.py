"""What each verb of the command line does. Stages are imported only when their verb runs."""

import json
import os
import shlex
import sys
from argparse import Namespace
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.evaluation import FeaturesConfig
from pipeline.config.load import load_config, preset_names
from pipeline.config.schema import Config
from pipeline.errors import MarlinError, UsageError
from pipeline.layout import dataset_store, run_store
from pipeline.marks import marked
from pipeline.storage import Store, open_store
from pipeline.submit.stages import STAGES
from pipeline.text import plural, size_text

if TYPE_CHECKING:
    from preprocess.inspect.repair import Repair


def demo(args: Namespace) -> None:
    """The whole pipeline on sample videos, ending with a report."""
    from pipeline.demo import run_demo

    run_demo(Path(args.output), args.overrides)


def run(args: Namespace) -> None:
    """All stages of a configuration."""
    from pipeline.local import run_stages

    cfg = _config(args)
    run_stages(cfg)
    _say(f"run {cfg.run.name} is done: {run_store(cfg).url}")


def preprocess(args: Namespace) -> None:
    """Raw videos to shards."""
    from preprocess.dataset.summary import preprocess_text
    from preprocess.stage import run_preprocess

    cfg = _config(args)
    with marked(run_store(cfg), args.mark) if args.mark else nullcontext():
        summary = run_preprocess(cfg)
    _say(preprocess_text(summary, _again(args)))


def train(args: Namespace) -> None:
    """Pretraining."""
    from train.launch import run_training
    from train.meeting import speaks

    cfg = _config(args)
    status = run_training(cfg)
    if speaks(os.environ):
        _say(f"trained {status.step} steps: {run_store(cfg).url}")


def evaluate(args: Namespace) -> None:
    """Evaluation of one published checkpoint, or of each as it is published."""
    cfg = _config(args)
    if args.watch:
        from eval.watch import watch

        trains = None
        if args.slurm_job:
            from pipeline.submit.slurm import queued

            trains = partial(queued, args.slurm_job)
        _say(f"evaluated {plural(watch(cfg, trains=trains), 'checkpoint')}: {run_store(cfg).url}/evals")
        return
    if args.slurm_job:
        raise UsageError("--slurm-job goes with --watch: add it, or leave --slurm-job out")
    from eval.job import run_eval

    results = run_eval(cfg, checkpoint=args.checkpoint)
    _say(json.dumps({task: result["metrics"] for task, result in results.items()}, indent=1))


def wait(args: Namespace) -> None:
    """Until what another job makes is there."""
    from pipeline.wait import wait_for

    if args.mark and args.awaited != "dataset":
        raise UsageError("--mark goes with --for dataset: add it, or leave --mark out")
    wait_for(_config(args), args.awaited, args.mark)


def submit_slurm(args: Namespace) -> None:
    """Stages as SLURM jobs."""
    from pipeline.submit.chain import dry_run, submit_chain

    cfg, stages = _config(args), args.stage or STAGES
    if args.dry_run:
        _say(dry_run(cfg, stages).rstrip())
        return
    for job in submit_chain(cfg, stages).jobs:
        _say(f"{job.stage}: job {job.number}, log {job.log}")
    _say(f"`marlin submit status {_again(args)}` says how they stand")


def submit_k8s(args: Namespace) -> None:
    """Stages as objects of a Kubernetes cluster."""
    from pipeline.submit.k8s_chain import dry_run_k8s, submit_to_k8s

    cfg, stages = _config(args), args.stage or STAGES
    if args.dry_run:
        _say(dry_run_k8s(cfg, stages).rstrip())
        return
    for job in submit_to_k8s(cfg, stages).jobs:
        _say(f"{job.stage}: {job.kind} {job.number}" + f", after {' and '.join(job.after)}" * bool(job.after))
    _say(f"`marlin submit status {_again(args)}` says how they stand")


def submit_status(args: Namespace) -> None:
    """How a run's jobs stand."""
    from pipeline.submit.status import status_text

    _say(status_text(_run_of(args)))


def submit_cancel(args: Namespace) -> None:
    """Take a run's jobs out of the queue."""
    from pipeline.submit.status import cancel_jobs

    cancelled = cancel_jobs(_run_of(args))
    _say(f"cancelled {plural(len(cancelled), 'job')}: {', '.join(cancelled)}" if cancelled else "no job is left")


def features(args: Namespace) -> None:
    """Features of the faces of videos."""
    from eval.extract import extract_videos

    overrides = [given for given in args.video if _is_override(given)]
    videos = [given for given in args.video if given not in overrides]
    if not videos:
        raise UsageError("no video is given: name one or more")
    options = {name: getattr(args, name) for name in FeaturesConfig.model_fields}
    overrides += [f"eval.features.{name}={json.dumps(value)}" for name, value in options.items() if value is not None]
    found = extract_videos(videos, args.model, _local(args.output), overrides, cropped=args.cropped)
    faces = sum(len(each) for each in found.values())
    _say(f"wrote {args.output}: {plural(faces, 'face')} of {plural(len(found), 'video')}")


def explain(args: Namespace) -> None:
    """Where the encoder looks in a video, and what speaks for an attribute."""
    from eval.explain import explain_video

    asked = {"attention": args.attention, "task": args.task, "attributes": args.attribute}
    faces = explain_video(args.video, args.model, _local(args.output), cropped=args.cropped, **asked)
    _say(f"wrote {args.output}: {plural(faces, 'face')}")


def lipsync(args: Namespace) -> None:
    """A dubbed video."""
    from eval.lipsync.dub import dub_video

    options = {"encoder": args.encoder, "cropped": args.cropped}
    found = dub_video(args.video, args.audio, _local(args.output), args.model, args.overrides, **options)
    _say(f"wrote {args.output}: {plural(found.frames, 'frame')}, {found.drawn} with a face that was drawn anew")


def track(args: Namespace) -> None:
    """What waits in a run's folder for MLflow."""
    from pipeline.tracking import deliver_left_behind

    cfg = _config(args)
    delivered = deliver_left_behind(cfg, run_store(cfg))
    _say(f"delivered {plural(delivered, 'file')}" if delivered else "nothing waits for MLflow")


def report(args: Namespace) -> None:
    """One HTML page of one run, or of several side by side."""
    from eval.report.given import config_of_run
    from eval.report.page import write_report

    overrides = [given for given in args.given if _is_override(given)]
    configs = [config_of_run(given, overrides) for given in args.given if given not in overrides]
    configs += [load_config(source, overrides) for source in args.config]
    out = _local(args.output)
    write_report(configs, out)
    _say(f"report: {out.absolute()}")


def _is_override(given: str) -> bool:
    """Whether an argument is a section.key=value, and no path or URL."""
    key, equals, _ = given.partition("=")
    return bool(equals) and "/" not in key and not Path(given).exists()


def sweep(args: Namespace) -> None:
    """A grid of overrides and seeds, each member a run of its own."""
    from pipeline.sweep.job import run_sweep
    from pipeline.sweep.plan import load_sweep

    chosen = load_sweep(args.config, args.overrides)
    report = run_sweep(chosen, _local(args.output or f"sweep-{chosen.name}"))
    _say(f"sweep {chosen.name} is done: {report.absolute()}")


def export(args: Namespace) -> None:
    """Weights of a checkpoint as files of others."""
    from train.formats import export_checkpoint

    export_checkpoint(args.checkpoint, _local(args.out), args.format, encoder_only=args.encoder)
    _say(f"exported to {args.out}")


def register(args: Namespace) -> None:
    """A checkpoint in MLflow's model registry."""
    from eval.register import register

    version = register(_config(args), args.name, checkpoint=args.checkpoint, alias=args.alias)
    _say(f"registered models:/{args.name}/{version}" + f", alias {args.alias}" * bool(args.alias))


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


def samples_draw(args: Namespace) -> None:
    """A corpus of drawn faces in the layout of a published one."""
    from preprocess.drawing.corpus import draw_corpus
    from preprocess.drawing.layouts import Request

    out = _local(args.out)
    request = Request(args.videos, args.frames, args.seed)
    drawn = draw_corpus(args.kind, out, request, size=args.size, zoom=args.zoom, workers=args.workers)
    count = f"{plural(drawn.videos, 'video')} of {plural(drawn.people, 'person', 'people')}"
    again = shlex.join(["-c", "CONFIG", *drawn.settings])
    _say(f"drew {count}: {args.out}; next: marlin preprocess {again}")


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


def _run_of(args: Namespace) -> Store:
    """The folder of a run, which is given by its URL or by its configuration."""
    if args.run in preset_names() or Path(args.run).is_file():
        return run_store(load_config(args.run, args.overrides))
    if args.overrides:
        raise UsageError(f"no preset and no file is named '{args.run}': overrides go with a configuration only")
    return open_store(args.run)


def _again(args: Namespace) -> str:
    """The configuration as it was given, to be typed again."""
    return shlex.join([args.config, *args.overrides])


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _local(path: str) -> Path:
    """Where a command writes.

    Raises:
        UsageError: it is a URL.
    """
    if "://" in path:
        raise UsageError(f"{path} is a URL, and this is written to a local path: give one, and copy what is there then")
    return Path(path)
