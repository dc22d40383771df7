"""Labelled tasks through the evaluation job, on data whose answers can be seen."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from drawn_runs import MakeRun
from labelled import LABELS, SCHEMAS, tracks, write_labelled
from synthetic import DrawnTrack, write_dataset

from eval.features import WindowFeatures, extract
from eval.heads import read_head
from eval.job import check_tasks, run_eval
from eval.questions import TOPICS, answered
from eval.sequences import FrameSequence
from eval.tasks import registry
from eval.tasks.labelled import attempts
from eval.tasks.protocols import PROTOCOLS
from pipeline.checkpoints import list_checkpoints
from pipeline.config.evaluation import TASKS
from pipeline.config.schema import Config
from pipeline.dataset import load_dataset
from pipeline.errors import MarlinError, UsageError
from pipeline.layout import run_store
from pipeline.storage import Store, open_store
from pipeline.tracking import metric_history

QUICK = (
    "eval.bootstrap=20",
    "eval.probe.epochs=60",
    "eval.probe.lr=0.05",
    "eval.probe.neighbors=3",
    "eval.finetune.epochs=4",
    "eval.finetune.batch=8",
    "eval.finetune.lr=0.001",
)


def dataset_of(question: str) -> str:
    return {"sentiment7": "sentiment", "sentiment2": "sentiment"}.get(question, question)


@pytest.fixture
def labelled(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "labelled"))


def evaluated(make_run: MakeRun, labelled: Store, task: str, *overrides: str, again: bool = False) -> Config:
    """A run to evaluate; `again` asks another question of the run that is there."""
    question = task.partition("-")[0]
    where = f"eval.datasets.{dataset_of(question)}='{labelled.url}'"
    return make_run(f"eval.tasks=[{task}]", where, *QUICK, *overrides, steps=() if again else (20,))


@pytest.mark.parametrize("question", SCHEMAS)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_can_be_seen_is_learned(make_run: MakeRun, labelled: Store, question: str, protocol: str) -> None:
    identity = write_labelled(labelled, question)
    task = f"{question}-{protocol}"
    cfg = evaluated(make_run, labelled, task)
    result = run_eval(cfg, progress=False)[task]
    assert result["metrics"]["accuracy"] == 1.0
    assert result["metrics"]["majority_accuracy"] == 0.5
    if question != "sentiment7":
        assert result["metrics"]["auc"] == 1.0
    assert result["videos"] == {"train": 16, "val": 4, "test": 8}
    assert result["scored"] == "test"
    assert result["dataset"] == identity
    assert result["intervals"]["accuracy"] == [1.0, 1.0]
    assert metric_history(cfg, run_store(cfg), f"eval/{task}/accuracy") == [(20, 1.0)]


def test_a_linear_probe_leaves_its_layer(make_run: MakeRun, labelled: Store) -> None:
    write_labelled(labelled, "attributes")
    cfg = evaluated(make_run, labelled, "attributes-linear")
    result = run_eval(cfg, progress=False)["attributes-linear"]
    [checkpoint] = list_checkpoints(run_store(cfg))
    head = read_head(run_store(cfg), checkpoint, "attributes-linear")
    assert head is not None
    assert head.names == ("action/smile", "appearance/young", "appearance/male")
    assert all(row == {"share": 0.5, "accuracy": 1.0, "auc": 1.0} for row in result["per_label"].values())


def test_attributes_are_scored_by_group(make_run: MakeRun, labelled: Store) -> None:
    write_labelled(labelled, "attributes")
    metrics = run_eval(evaluated(make_run, labelled, "attributes-knn"), progress=False)["attributes-knn"]["metrics"]
    for group in ("appearance", "action"):
        assert metrics[f"{group}_accuracy"] == metrics[f"{group}_auc"] == metrics[f"{group}_macro_auc"] == 1.0


def test_few_labels_are_drawn_and_repeated(make_run: MakeRun, labelled: Store) -> None:
    write_labelled(labelled, "deepfake")
    cfg = evaluated(make_run, labelled, "deepfake-linear", "eval.label_shares=[0.25,1]", "eval.repeats=3")
    result = run_eval(cfg, progress=False)["deepfake-linear"]
    assert [(row["share"], row["videos"]) for row in result["shares"]] == [(1.0, 16), (0.25, 4)]
    assert [(shot["seed"], shot["share"]) for shot in result["shots"]] == [
        (seed, share) for seed in (0, 1, 2) for share in (1.0, 0.25)
    ]
    assert result["metrics"]["accuracy"] == result["shares"][0]["mean"]["accuracy"]
    assert set(result["shares"][1]["std"]) == set(result["shares"][1]["mean"])


def test_each_manipulation_and_subgroup_is_scored_apart(make_run: MakeRun, labelled: Store) -> None:
    videos = tracks("deepfake")
    other = {"fake": "fake", "method": "Face2Face"}
    # Of the last manipulation one video looks genuine.
    videos += [DrawnTrack(f"z{n}.mp4", (), (), test=(32,), labels=other, mark=255 * n) for n in (0, 1)]
    write_dataset(labelled, videos, labels=SCHEMAS["deepfake"])
    cfg = evaluated(make_run, labelled, "deepfake-linear", "eval.subgroups=[fake]")
    groups = run_eval(cfg, progress=False)["deepfake-linear"]["subgroups"]
    assert groups["method=Deepfakes"] == {"videos": 8, "metrics": {"accuracy": 1.0, "auc": 1.0}}
    assert groups["method=Face2Face"]["videos"] == 6
    assert groups["method=Face2Face"]["metrics"]["accuracy"] == pytest.approx(5 / 6)
    assert groups["fake=real"] == {"videos": 4, "metrics": {"accuracy": 1.0}}
    assert groups["fake=fake"]["metrics"]["accuracy"] == pytest.approx(5 / 6)


def test_without_a_test_split_the_held_out_videos_are_scored_and_choose_nothing(
    make_run: MakeRun, labelled: Store
) -> None:
    write_labelled(labelled, "deepfake", test=0)
    result = run_eval(evaluated(make_run, labelled, "deepfake-linear"), progress=False)["deepfake-linear"]
    assert result["scored"] == "val"
    assert result["shots"][0]["epoch"] == 60  # the last one


def test_features_are_made_once_for_all_tasks_on_them(
    make_run: MakeRun, labelled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import eval.tasks.protocols as module

    calls = []

    def counting(store: Store, sequences: Sequence[FrameSequence], *others: Any, **options: Any) -> WindowFeatures:
        calls.append(len(sequences))
        return extract(store, sequences, *others, **options)

    monkeypatch.setattr(module, "extract", counting)
    write_labelled(labelled, "sentiment2")
    where = f"eval.datasets.sentiment='{labelled.url}'"
    tasks = ["sentiment2-linear", "sentiment7-linear", "sentiment2-knn"]
    assert set(run_eval(make_run(f"eval.tasks=[{','.join(tasks)}]", where, *QUICK), progress=False)) == set(tasks)
    assert calls == [28]


def test_videos_without_a_label_are_counted_and_tolerated_up_to_a_share(make_run: MakeRun, labelled: Store) -> None:
    videos = [*tracks("emotion"), DrawnTrack("bare.mp4", (32,), ()), DrawnTrack("naked.mp4", (), (), test=(32,))]
    write_dataset(labelled, videos, labels=SCHEMAS["emotion"])
    cfg = evaluated(make_run, labelled, "emotion-knn", "eval.max_unlabelled=0.05")
    expected = r"2 of 30 videos of .* lack a label of emotion, as bare\.mp4, naked\.mp4: .*eval\.max_unlabelled=0\.05"
    with pytest.raises(MarlinError, match=expected):
        check_tasks(cfg)
    assert not list(run_store(cfg).list("evals/"))
    cfg = evaluated(make_run, labelled, "emotion-knn", again=True)
    assert run_eval(cfg, progress=False)["emotion-knn"]["left_out"] == {"no emotion label": 2}


@pytest.mark.parametrize(
    ("zero", "left_out", "share"), [("positive", {}, 0.75), ("negative", {}, 0.5), ("left-out", {"not asked": 7}, 0.66)]
)
def test_a_sentiment_of_zero_is_what_is_asked_for(
    make_run: MakeRun, labelled: Store, zero: str, left_out: dict[str, int], share: float
) -> None:
    videos = [
        DrawnTrack(track.source, track.train, track.val, test=track.test, labels=labels, mark=track.mark)
        for number, track in enumerate(tracks("sentiment2"))
        for labels in [{"sentiment": 0} if number % 4 == 0 else LABELS["sentiment2"](number % 2)]
    ]
    write_dataset(labelled, videos, labels=SCHEMAS["sentiment2"])
    cfg = evaluated(make_run, labelled, "sentiment2-knn", f"eval.sentiment_zero={zero}")
    result = run_eval(cfg, progress=False)["sentiment2-knn"]
    assert result["left_out"] == left_out
    assert result["per_label"]["positive"]["share"] == pytest.approx(share, abs=0.01)


@pytest.mark.parametrize(
    ("task", "schema", "message"),
    [
        ("attributes-linear", "emotion", r"no binary labels \(it has emotion\): set eval\.datasets\.attributes"),
        ("sentiment7-knn", "emotion", r"no label 'sentiment' \(it has emotion\): set eval\.datasets\.sentiment"),
        ("deepfake-finetune", "attributes", r"no label 'fake' \(it has action, appearance\)"),
    ],
)
def test_a_dataset_without_the_labels_is_refused_before_training(
    make_run: MakeRun, labelled: Store, task: str, schema: str, message: str
) -> None:
    write_labelled(labelled, schema)
    with pytest.raises(MarlinError, match=message):
        check_tasks(evaluated(make_run, labelled, task))


def test_data_that_cannot_serve_is_named(make_run: MakeRun, labelled: Store) -> None:
    write_labelled(labelled, "emotion", test=0, val=0)
    with pytest.raises(MarlinError, match="no labelled videos of split 'test' or 'val' for emotion"):
        check_tasks(evaluated(make_run, labelled, "emotion-knn"))
    write_labelled(labelled, "emotion")
    with pytest.raises(UsageError, match=r"eval\.subgroups: no label 'sex' in .*/labelled"):
        check_tasks(evaluated(make_run, labelled, "emotion-knn", "eval.subgroups=[sex]", again=True))
    write_dataset(labelled, tracks("emotion"), labels=SCHEMAS["emotion"], size=64)
    with pytest.raises(MarlinError, match="frames of 64 pixels and the model takes 32"):
        check_tasks(evaluated(make_run, labelled, "emotion-knn", again=True))


def test_results_that_differ_in_what_they_depend_on_are_named(
    make_run: MakeRun, labelled: Store, caplog: pytest.LogCaptureFixture
) -> None:
    write_labelled(labelled, "emotion")
    run_eval(evaluated(make_run, labelled, "emotion-knn"), progress=False)
    run_eval(evaluated(make_run, labelled, "emotion-knn", "eval.sentiment_zero=negative", again=True), progress=False)
    assert "answers another" not in caplog.text
    result = run_eval(
        evaluated(make_run, labelled, "emotion-knn", "eval.emotion_threshold=1", again=True), progress=False
    )
    assert "emotion-knn.json answers another eval and is kept" in caplog.text
    assert json.dumps(result)  # plain numbers


def other_way(track: DrawnTrack) -> DrawnTrack:
    """The same picture with the other answer."""
    return replace(track, labels=LABELS["deepfake"](1 - track.mark // 255))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_is_learned_from_what_is_scored(make_run: MakeRun, labelled: Store, protocol: str) -> None:
    videos = [other_way(track) if track.test else track for track in tracks("deepfake", test=24)]
    write_dataset(labelled, videos, labels=SCHEMAS["deepfake"])
    result = run_eval(evaluated(make_run, labelled, f"deepfake-{protocol}"), progress=False)[f"deepfake-{protocol}"]
    assert result["metrics"]["accuracy"] == result["metrics"]["auc"] == 0.0


@pytest.mark.parametrize("protocol", ["linear", "finetune"])
def test_the_best_epoch_is_chosen_on_the_validation_videos_alone(
    make_run: MakeRun, labelled: Store, protocol: str
) -> None:
    videos = [other_way(track) if track.val else track for track in tracks("deepfake", val=8)]
    write_dataset(labelled, videos, labels=SCHEMAS["deepfake"])
    rates = ("eval.probe.lr=0.001", "eval.finetune.lr=0.0001")
    result = run_eval(evaluated(make_run, labelled, f"deepfake-{protocol}", *rates), progress=False)
    assert result[f"deepfake-{protocol}"]["shots"][0]["epoch"] == 1  # the least learned


def test_few_labels_are_few_to_choose_on_too(make_run: MakeRun, labelled: Store) -> None:
    write_labelled(labelled, "deepfake", train=8, val=40, test=4)
    dataset, cfg = load_dataset(labelled), make_run("eval.label_shares=[0.25,1]", "eval.repeats=2").eval
    found = answered(dataset, TOPICS["deepfake"].rule(dataset, cfg), cfg)
    made = attempts(found, cfg)
    assert [(a.seed, a.share, len(a.train), len(a.held_out)) for a in made] == [
        (0, 1, 8, 40),
        (0, 0.25, 2, 10),
        (1, 1, 8, 40),
        (1, 0.25, 2, 10),
    ]
    assert made[1].held_out.tolist() != made[3].held_out.tolist()


def test_a_task_of_hours_goes_on_where_it_was_killed(
    make_run: MakeRun, labelled: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    import eval.tasks.protocols as module

    write_labelled(labelled, "deepfake")
    task, run_ranks, ranks = "deepfake-finetune", module.run_ranks, []

    def killed_at_third(*arguments: Any) -> None:
        ranks.append(len(ranks))
        if len(ranks) == 3:
            raise KeyboardInterrupt
        run_ranks(*arguments)

    monkeypatch.setattr(module, "run_ranks", killed_at_third)
    cfg = evaluated(make_run, labelled, task, "eval.label_shares=[0.5,1]", "eval.repeats=2")
    with pytest.raises(KeyboardInterrupt):
        run_eval(cfg, progress=False)
    assert len(list(run_store(cfg).list("evals/"))) == 2
    result = run_eval(cfg, progress=False)[task]
    assert len(ranks) == 5  # two before, the one that was killed, and the two that were left
    assert len(result["shots"]) == 4
    assert [item.key.rpartition("/")[2] for item in run_store(cfg).list("evals/")] == [f"{task}.json"]


def test_a_face_in_several_parts_and_tracks_counts_as_one_video(make_run: MakeRun, labelled: Store) -> None:
    videos = [
        DrawnTrack(
            track.source,
            lengths if track.train else (),
            lengths if track.val else (),
            number,
            lengths if track.test else (),
            track.labels,
            track.mark,
        )
        for track in tracks("deepfake")
        for number, lengths in enumerate(((32, 32), (40,)))
    ]
    write_dataset(labelled, videos, labels=SCHEMAS["deepfake"])
    for protocol in ("linear", "finetune"):
        cfg = evaluated(make_run, labelled, f"deepfake-{protocol}", again=protocol == "finetune")
        result = run_eval(cfg, progress=False)[f"deepfake-{protocol}"]
        assert result["videos"] == {"train": 16, "val": 4, "test": 8}
        assert result["metrics"]["accuracy"] == 1.0


@pytest.mark.slow
def test_a_rank_that_fails_is_named_and_nothing_is_published(make_run: MakeRun, labelled: Store) -> None:
    write_labelled(labelled, "deepfake")
    for shard in labelled.list("shards/"):
        if "000003" in shard.key:
            labelled.write(shard.key, b"gone")
    cfg = evaluated(make_run, labelled, "deepfake-finetune", "eval.finetune.processes=2")
    with pytest.raises(MarlinError, match=r"rank \d of 2 failed: .*000003"):
        run_eval(cfg, progress=False)
    assert not list(run_store(cfg).list("evals/"))


def test_every_task_that_a_configuration_may_name_is_there() -> None:
    assert set(registry.TASKS) == set(TASKS)
    together, *alone = registry.task_groups(["emotion-finetune", "emotion-linear", "track-probe", "emotion-attentive"])
    assert together == ["emotion-linear", "track-probe"]
    assert alone == [["emotion-finetune"], ["emotion-attentive"]]
