"""Labelled tasks on the report: what is measured stands as it was, apart from what was published."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from drawn_runs import MakeRun, publish
from labelled import SCHEMAS, tracks, write_labelled
from pages import Page
from results import binary_result, put_result
from synthetic import DrawnTrack, write_dataset

from eval.job import run_eval
from eval.report.page import write_report
from pipeline.config.schema import Config
from pipeline.storage import open_store
from pipeline.storage.manifest import to_json

PUBLISHED = [
    ["MARLIN published", "not stated", "93.90%", "0.9561", "–", "–", "CelebV-HQ read at Papers with Code"],
    ["MARLIN published", "not stated", "95.48%", "0.9406", "–", "–", "CelebV-HQ read at Papers with Code"],
    ["MARLIN (ViT-S) published", "not stated", "80.38%", "–", "–", "–", "CMU-MOSEI read at Papers with Code"],
    ["MARLIN (ViT-B) published", "not stated", "80.60%", "–", "–", "–", "CMU-MOSEI read at Papers with Code"],
    ["MARLIN (ViT-S) published", "not stated", "72.69%", "–", "–", "–", "CMU-MOSEI read at Papers with Code"],
    ["MARLIN (ViT-B) published", "not stated", "73.70%", "–", "–", "–", "CMU-MOSEI read at Papers with Code"],
    ["MARLIN (ViT-L) published", "not stated", "74.83%", "–", "–", "–", "CMU-MOSEI read at Papers with Code"],
    ["MARLIN (ViT-S) published", "not stated", "–", "0.8863", "–", "–", "FaceForensics++ read at Papers with Code"],
    ["MARLIN (ViT-B) published", "not stated", "–", "0.9305", "–", "–", "FaceForensics++ read at Papers with Code"],
    ["MARLIN (ViT-L) published", "not stated", "–", "0.9377", "–", "–", "FaceForensics++ read at Papers with Code"],
    ["MARLIN published", "–", "7.127", "judge: SyncNet", "LRS2 read at Wizwand"],
]
BLOCKS = [
    *("Appearance", "Action", "Emotion", "Sentiment, seven classes", "Sentiment, two classes", "Real or manipulated"),
]


def report(cfgs: Sequence[Config], tmp_path: Path) -> Page:
    return Page(write_report(cfgs, tmp_path / "report.html", progress=False).read_text("utf-8"))


def block(page: Page, title: str) -> list[list[str]]:
    """Rows under the heading of a block, but the published ones."""
    rows = page.rows["labelled"]
    start = next(index for index, row in enumerate(rows) if row.cells == [title])
    ends = (n for n, row in enumerate(rows) if n > start and (row.kind == "block" or row.cells[0] == "Model"))
    end = next(ends, len(rows))
    return [row.cells for row in rows[start + 1 : end] if row.kind != "published"]


def test_what_was_published_stands_apart_and_what_was_not_measured_is_called_so(
    make_run: MakeRun, tmp_path: Path
) -> None:
    page = report([make_run("run.name=mine")], tmp_path)
    rows = page.rows["labelled"]
    assert [row.cells for row in rows if row.kind == "published"] == PUBLISHED
    assert [row.cells[0] for row in rows if row.kind == "block"] == BLOCKS
    everything = "linear probe, fine-tuning, attentive probe, k-NN"
    for title in BLOCKS[:-1]:
        assert block(page, title)[0] == ["mine", f"not run: {everything}"]
    assert ["mine", "not run"] in [row.cells for row in rows]  # lip synchronisation
    text = page.texts["labelled"]
    assert "https://www.paperswithcode.com/paper/marlin-masked-autoencoder-for-facial-video" in text
    assert "Wizwand, benchmarks listed for the paper, https://www.wizwand.com/paper/68fa6ecc1e209131cea42360" in text
    assert "comparable only to results that are so too" in text
    assert "no source of its numbers could be read" in text
    assert "Evaluated datasets" not in text
    assert "Label by label" not in text


def test_measured_rows_say_what_the_result_says(make_run: MakeRun, tmp_path: Path) -> None:
    """A linear probe of real videos with few labels, some of them wrong, through the whole job."""
    store = open_store(str(tmp_path / "labelled"))
    videos = [
        DrawnTrack(
            video.source, video.train, video.val, test=video.test, labels=video.labels, mark=100 + number % 5 * 9
        )
        for number, video in enumerate(tracks("attributes"))
    ]
    identity = write_dataset(store, videos, labels=SCHEMAS["attributes"])
    settings = ("eval.label_shares=[0.5,1]", "eval.repeats=2", "eval.bootstrap=20", "eval.probe.epochs=5")
    where = f"eval.datasets.attributes='{store.url}'"
    cfg = make_run("eval.tasks=[attributes-linear]", where, "eval.subgroups=[appearance/male]", *settings)
    result = run_eval(cfg, progress=False)["attributes-linear"]
    page = report([cfg], tmp_path)
    full, half = result["shares"]
    for title, prefix in (("Appearance", "appearance_"), ("Action", "action_")):
        accuracy, auc = f"{prefix}accuracy", f"{prefix}auc"
        low, high = result["intervals"][accuracy]
        small, large = result["intervals"][auc]
        assert block(page, title)[0] == [
            "demo",
            "linear probe of all attributes",
            f"{full['mean'][accuracy]:.2%} ± {100 * full['std'][accuracy]:.2f} {low:.2%} to {high:.2%}",
            f"{full['mean'][auc]:.4f} ± {full['std'][auc]:.4f} {small:.4f} to {large:.4f}",
            f"{result['metrics'][f'majority_{accuracy}']:.2%}",
            "8 test videos",
            f"drawn {identity[:12]}",
        ]
        assert block(page, title)[1] == ["demo", "not run: fine-tuning, attentive probe, k-NN"]
    rows = [row.cells for row in page.rows["labelled"]]
    assert f"drawn {identity[:12]} : 28 videos, {store.url}." in page.texts["labelled"]
    few = [f"{part['mean']['auc']:.4f} ± {part['std']['auc']:.4f} {part['videos']} videos" for part in (full, half)]
    assert ["attributes-linear", "AUC", *few] in rows
    for label, told in result["per_label"].items():
        assert [label, f"{told['share']:.1%}", f"{told['auc']:.4f}", f"{told['accuracy']:.2%}"] in rows
    for group, told in result["subgroups"].items():
        auc = f"{told['metrics']['auc']:.4f}" if "auc" in told["metrics"] else "–"
        assert [group, str(told["videos"]), f"{told['metrics']['accuracy']:.2%}", auc] in rows


def test_runs_stand_below_each_other_in_one_table(make_run: MakeRun, tmp_path: Path) -> None:
    one, two = make_run("run.name=one"), make_run("run.name=two", steps=())
    put_result(one, "emotion-finetune", binary_result())
    page = report([one, two], tmp_path)
    assert block(page, "Emotion") == [
        ["one", "fine-tuning", "62.50%", "0.7500", "50.00%", "8 test videos", f"not found {'0' * 12}"],
        ["two", "not run: fine-tuning"],
        ["every run", "not run: linear probe, attentive probe, k-NN"],
    ]


def test_runs_of_one_name_are_told_apart_by_their_storage(make_run: MakeRun, tmp_path: Path) -> None:
    cfgs = []
    for place, auc in (("here", 0.75), ("there", 0.5)):
        root = tmp_path / place
        cfgs.append(make_run("run.name=first", f"storage.root='{root}'", steps=()))
        publish(cfgs[-1], 20, tmp_path / f"made-{place}")
        put_result(cfgs[-1], "emotion-linear", binary_result(auc))
    page = report(cfgs, tmp_path)
    here, there = (f"first ({tmp_path / place})" for place in ("here", "there"))
    assert [row[:4] for row in block(page, "Emotion")[:2]] == [
        [here, "linear probe", "62.50%", "0.7500"],
        [there, "linear probe", "62.50%", "0.5000"],
    ]
    assert page.rows["comparison"][0].cells[2:] == [f"{here} step 20", f"{there} step 20"]


def test_attributes_are_told_by_group_however_they_were_learned(make_run: MakeRun, tmp_path: Path) -> None:
    """Of one group by itself; of all at once, from a tenth of the labels; not where the dataset has no such group."""
    cfg = make_run()
    scores = {"accuracy": 0.625, "auc": 0.75, "action_accuracy": 0.875, "action_auc": 0.5}
    part = {"share": 0.1, "videos": 2, "mean": scores, "std": {}}
    metrics = {**scores, "majority_accuracy": 0.5, "majority_action_accuracy": 0.25}
    told = {"question": "attributes", "shares": [part], "metrics": metrics, "scored": "val", "shared_people": 3}
    put_result(cfg, "attributes-knn", binary_result(**told))
    put_result(cfg, "action-knn", binary_result(question="action"))
    page = report([cfg], tmp_path)
    assert block(page, "Appearance") == [["demo", "not run: linear probe, fine-tuning, attentive probe, k-NN"]]
    dataset = f"not found {'0' * 12}"
    seen = "4 val videos 3 people also in training"
    assert block(page, "Action") == [
        ["demo", "k-NN", "62.50%", "0.7500", "50.00%", "8 test videos", dataset],
        ["demo", "k-NN of all attributes, 10% of the labels", "87.50%", "0.5000", "25.00%", seen, dataset],
        ["demo", "not run: linear probe, fine-tuning, attentive probe"],
    ]


def test_unfinished_work_is_no_result(make_run: MakeRun, tmp_path: Path) -> None:
    cfg = make_run()
    put_result(cfg, "emotion-linear.unfinished/0/first", {"schema": "of its own"})
    assert "62.50%" not in report([cfg], tmp_path).texts["labelled"]


def test_labels_and_groups_stand_best_first_with_their_gap(make_run: MakeRun, tmp_path: Path) -> None:
    """A hostile name, a label that has no area under the curve, and a group that has none either."""
    labels = {
        "<b>poor": {"share": 0.5, "accuracy": 0.5, "auc": 0.25},
        "good": {"share": 0.25, "accuracy": 0.75, "auc": 0.875},
        "never": {"share": 0.0, "accuracy": 1.0},
    }
    groups = {
        "age=old": {"videos": 3, "metrics": {"accuracy": 0.5, "auc": 0.5}},
        "age=young": {"videos": 5, "metrics": {"accuracy": 0.25, "auc": 0.75}},
        "fake=fake": {"videos": 6, "metrics": {"accuracy": 0.25}},
        "fake=real": {"videos": 2, "metrics": {"accuracy": 0.75, "auc": 0.5}},
    }
    cfg = make_run()
    put_result(cfg, "emotion-linear", binary_result(per_label=labels, subgroups=groups))
    page = report([cfg], tmp_path)
    rows = [row.cells for row in page.rows["labelled"]]
    start = rows.index(["Label", "Share of videos", "AUC", "Accuracy"])
    assert rows[start + 1 : start + 4] == [
        ["good", "25.0%", "0.8750", "75.00%"],
        ["<b>poor", "50.0%", "0.2500", "50.00%"],
        ["never", "0.0%", "–", "100.00%"],
    ]
    assert rows[start + 4 : start + 9] == [
        ["emotion-linear", "Videos", "Accuracy", "AUC"],
        ["age=young", "5", "25.00%", "0.7500"],
        ["age=old", "3", "50.00%", "0.5000"],
        ["fake=real", "2", "75.00%", "0.5000"],
        ["fake=fake", "6", "25.00%", "–"],
    ]
    text = page.texts["labelled"]
    assert "emotion-linear: 3 labels, best good (0.8750), worst <b>poor (0.2500)" in text
    assert "Gap in age: 0.2500 of AUC between age=young and age=old." in text
    assert "Gap in fake: 50.00 points of accuracy between fake=real and fake=fake." in text
    assert "<b>poor" not in (tmp_path / "report.html").read_text("utf-8")


def test_a_dataset_that_changed_since_is_not_taken_for_the_one_that_was_measured(
    make_run: MakeRun, tmp_path: Path
) -> None:
    store = open_store(str(tmp_path / "labelled"))
    identity = write_labelled(store, "emotion")
    cfg = make_run(f"eval.datasets.emotion='{store.url}'")
    put_result(cfg, "emotion-linear", binary_result(dataset=identity))
    assert f"drawn {identity[:12]} : 28 videos, {store.url}." in report([cfg], tmp_path).texts["labelled"]
    write_labelled(store, "emotion", train=8)
    gone = f"not found {identity[:12]} : no longer where the configuration says."
    assert gone in report([cfg], tmp_path).texts["labelled"]


def test_what_a_dataset_lacks_of_its_corpus_stands_beside_its_numbers(make_run: MakeRun, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "labelled"))
    write_labelled(store, "emotion")
    info = json.loads(store.read("dataset.json")) | {"findings": ["mosei: 16 train videos", "mosei: 8 test videos"]}
    data = to_json(info)
    store.write("dataset.json", data)
    cfg = make_run(f"eval.datasets.emotion='{store.url}'")
    put_result(cfg, "emotion-linear", binary_result(dataset=hashlib.sha256(data).hexdigest()))
    expected = "What does not fit the corpus whose layout it has: mosei: 16 train videos; mosei: 8 test videos."
    page = report([cfg], tmp_path)
    assert expected in page.texts["labelled"]
    assert block(page, "Emotion")[0][-1].endswith("differs, see above")


def test_a_class_question_is_told_by_its_accuracy(make_run: MakeRun, tmp_path: Path) -> None:
    cfg = make_run()
    scores = {"accuracy": 0.375, "balanced_accuracy": 0.25, "macro_f1": 0.125}
    shares = [{"share": share, "videos": n, "mean": scores, "std": {}} for share, n in ((1.0, 16), (0.25, 4))]
    labels = {"-1": {"share": 0.5, "recall": 0.25}, "1": {"share": 0.5, "recall": 0.5}, "3": {"share": 0.0}}
    told = {"question": "sentiment7", "kind": "class", "shares": shares, "per_label": labels}
    put_result(cfg, "sentiment7-linear", binary_result(metrics={**scores, "majority_accuracy": 0.5}, **told))
    page = report([cfg], tmp_path)
    assert block(page, "Sentiment, seven classes")[0][2:5] == ["37.50%", "–", "50.00%"]
    rows = [row.cells for row in page.rows["labelled"]]
    assert ["sentiment7-linear", "accuracy", "37.50% 16 videos", "37.50% 4 videos"] in rows
    start = rows.index(["Label", "Share of videos", "Recall"])
    assert [row[0] for row in rows[start + 1 : start + 4]] == ["1", "-1", "3"]
