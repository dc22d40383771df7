"""`marlin submit k8s` against a stand-in for the API server; tests/test_k8s_pods.py runs the pods."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from k8s_api import Api, run_api

from pipeline.cli import main
from pipeline.config.load import load_config
from pipeline.layout import run_store
from pipeline.submit.k8s import Kubernetes
from pipeline.submit.k8s_state import state_of
from pipeline.submit.record import Job, Submission, write_submission
from pipeline.submit.state import JobState
from train.status import Status, read_status, write_status

pytestmark = pytest.mark.usefixtures("restored")


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    with run_api() as running:
        monkeypatch.setenv("KUBECONFIG", str(running.kubeconfig(tmp_path / "kubeconfig")))
        yield running


class Command:
    """The command on a small run with its storage in a bucket of the test."""

    def __init__(self, url: str, printed: pytest.CaptureFixture[str]) -> None:
        self.given = [f"storage.root={url}", "launch.k8s.image=registry.example.org/marlin:cpu"]
        self.url = url
        self._printed = printed

    def submit(self, *options: str) -> tuple[int, str, str]:
        return self("k8s", "-c", "demo", *options, *self.given)

    def status(self) -> str:
        status, out, err = self("status", "demo", *self.given)
        assert status == 0, err
        return " ".join(out.split())

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        status = main(["submit", *arguments])
        return status, *self._printed.readouterr()

    def record(self) -> dict[str, Any]:
        store = run_store(load_config("demo", self.given))
        (item,) = store.list("submissions/")
        return json.loads(store.read(item.key))


@pytest.fixture
def command(api: Api, s3_url: str, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(s3_url, capsys)


def test_stages_are_applied_with_what_they_need(command: Command, api: Api) -> None:
    status, out, err = command.submit()
    assert status == 0, err
    assert api.kinds() == ["ConfigMap", "PodDisruptionBudget", "RayJob", "JobSet", "JobSet"]
    names = [name for _, name in api.objects]
    instance = names[0]
    assert names[1:] == [f"{instance}-train", f"{instance}-preprocess", f"{instance}-train", f"{instance}-eval"]
    assert f"train: JobSet {instance}-train, after preprocess" in out
    for kind in ("ConfigMap", "PodDisruptionBudget"):
        (found,) = [each for (its, _), each in api.objects.items() if its == kind]
        owners = [(owner["kind"], owner["uid"]) for owner in found["metadata"]["ownerReferences"]]
        assert owners == [
            *(("RayJob", f"uid-of-{instance}-preprocess"), ("JobSet", f"uid-of-{instance}-train")),
            ("JobSet", f"uid-of-{instance}-eval"),
        ]


def test_a_submission_is_written_down(command: Command, api: Api) -> None:
    command.submit()
    record = command.record()
    assert (record["scheduler"], record["context"], record["namespace"]) == (
        "kubernetes",
        "here",
        "marlin",
    )  # not: the context that is current then
    jobs = [(job["stage"], job["kind"], job["number"], job["after"]) for job in record["jobs"]]
    instance = next(name for kind, name in api.objects if kind == "ConfigMap")
    assert jobs == [
        ("preprocess", "RayJob", f"{instance}-preprocess", []),
        ("train", "JobSet", f"{instance}-train", ["preprocess"]),
        ("eval", "JobSet", f"{instance}-eval", ["preprocess"]),
    ]
    assert record["jobs"][1]["log"] == (
        "kubectl --context here -n marlin logs --prefix --tail=-1 "
        f"-l app.kubernetes.io/instance={instance},app.kubernetes.io/component=train"
    )


def test_a_dry_run_asks_nothing_of_the_cluster(command: Command, api: Api) -> None:
    status, out, err = command.submit("--dry-run", "--stage", "eval")
    assert (status, err) == (0, "")
    assert "kind: Job\n" in out
    assert api.calls == []
    assert list(run_store(load_config("demo", command.given)).list("")) == []


def test_what_kubernetes_refuses_takes_the_others_with_it(command: Command, api: Api) -> None:
    api.forbidden["JobSet"] = 'jobsets is forbidden: User "me" cannot patch\nresource'
    status, _, err = command.submit()
    assert status == 1
    assert "Kubernetes refuses JobSet demo-" in err
    assert 'jobsets is forbidden: User "me" cannot patch resource\n' in err
    assert api.objects == {}
    assert list(run_store(load_config("demo", command.given)).list("submissions/")) == []


@pytest.mark.parametrize(("group", "fix"), [("ray.io/v1", "KubeRay"), ("jobset.x-k8s.io/v1alpha2", "install JobSet")])
def test_a_cluster_without_an_operator_is_told_so(command: Command, api: Api, group: str, fix: str) -> None:
    api.groups.discard(group)
    status, _, err = command.submit()
    assert status == 1
    assert fix in err
    assert api.objects == {}


def test_a_namespace_that_is_not_there_is_named(command: Command, api: Api) -> None:
    status, _, err = command.submit("launch.k8s.namespace=elsewhere")
    assert status == 1
    assert 'namespaces "elsewhere" not found: apply k8s/site' in err


def test_without_a_cluster_the_error_says_so(
    command: Command, api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, _, err = command.submit("launch.k8s.context=nowhere")
    assert status == 1
    assert "launch.k8s.context" in err
    api.url = "http://127.0.0.1:9"
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(tmp_path / "other")))
    status, _, err = command.submit()
    assert status == 1
    assert "the cluster at http://127.0.0.1:9 does not answer" in err
    assert err.count("\n") == 1
    assert "secret-token" not in err


def test_a_stage_is_not_submitted_twice(command: Command, api: Api) -> None:
    assert command.submit("--stage", "train")[0] == 0
    status, _, err = command.submit()
    assert status == 1
    assert "train of run demo is queued already as job demo-" in err
    api.say("JobSet", conditions=[{"type": "Failed", "status": "True", "reason": "FailedJobs"}])
    assert command.submit("--stage", "train")[0] == 0


def test_a_job_of_a_cluster_that_can_not_be_asked_is_warned_of(
    command: Command, api: Api, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    earlier = Submission("20260101T000000Z-0000", "/shared", [Job("train", "12", [], "s", "l")])
    write_submission(run_store(load_config("demo", command.given)), earlier)
    monkeypatch.setenv("PATH", str(tmp_path))
    status, _, err = command.submit("--stage", "train")
    assert status == 0
    assert "job 12 of an earlier submission may still run: no scontrol on PATH" in err


def test_status_says_how_stages_stand_and_why(command: Command, api: Api) -> None:
    command.submit("--stage", "preprocess", "--stage", "train")
    assert "preprocess job" in command.status()
    api.say("RayJob", jobDeploymentStatus="Failed", jobStatus="FAILED", reason="AppFailed", message="exit 1", failed=4)
    api.say("JobSet", replicatedJobsStatus=[{"name": "wait", "ready": 1, "succeeded": 0}])
    instance = next(name for kind, name in api.objects if kind == "ConfigMap")
    labels = {"app.kubernetes.io/instance": instance, "app.kubernetes.io/component": "preprocess"}
    api.logs["submitter"] = (labels, "12:00 working\nmarlin: /data holds no video: check it\nbye\n")
    said = command.status()
    assert f"{instance}-preprocess: FAILED, restarted 3 times (AppFailed: exit 1)" in said
    assert "marlin: /data holds no video: check it" in said
    assert f"{instance}-train: PENDING (waits for preprocess): it waits in vain, preprocess did not succeed" in said


def test_status_joins_what_the_run_says(command: Command, api: Api) -> None:
    command.submit("--stage", "train")
    write_status(run_store(load_config("demo", command.given)), Status("resumable", 40, "stopped after step 40"))
    api.say("JobSet", restarts=1, replicatedJobsStatus=[{"name": "train", "ready": 0}])
    _, out, _ = command("status", f"{command.url}/runs/demo")
    said = " ".join(out.split())
    assert "resumable after 40 steps: stopped after step 40" in said
    assert "PENDING, restarted 1 time (Pods)" in said


def test_cancelling_deletes_what_has_not_ended(command: Command, api: Api) -> None:
    command.submit()
    instance = next(name for kind, name in api.objects if kind == "ConfigMap")
    api.say("RayJob", jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
    status, out, _ = command("cancel", "demo", *command.given)
    assert (status, out) == (0, f"cancelled 2 jobs: {instance}-eval, {instance}-train\n")
    assert api.kinds() == ["ConfigMap", "PodDisruptionBudget", "RayJob"]
    said = command.status()
    assert f"{instance}-train: UNKNOWN (deleted: cancelled, or cleaned up after its end)" in said
    assert f"{instance}-preprocess: COMPLETED" in said
    assert command("cancel", "demo", *command.given)[1] == "no job is left\n"


def test_what_is_being_cancelled_still_counts(command: Command, api: Api) -> None:
    command.submit("--stage", "train")
    api.say("JobSet", replicatedJobsStatus=[{"name": "train", "ready": 2}])
    api.lingering = True
    assert command("cancel", "demo", *command.given)[0] == 0
    assert "COMPLETING (cancelled: its pods save and stop)" in command.status()
    status, _, err = command.submit("--stage", "train")
    assert status == 1
    assert "train of run demo is queued already" in err  # two would write one run
    api.objects.clear()
    assert command.submit("--stage", "train")[0] == 0


@pytest.mark.parametrize("before", [Status("done", 40), Status("failed", 7, "out of disk")])
def test_the_word_of_an_earlier_training_is_taken_back(command: Command, api: Api, before: Status) -> None:
    run = run_store(load_config("demo", command.given))
    write_status(run, before)
    command.submit("--stage", "eval")
    assert read_status(run) == before
    api.forbidden["JobSet"] = "no"
    assert command.submit("--stage", "train")[0] == 1
    assert read_status(run) == before
    api.forbidden.clear()
    assert command.submit("--stage", "train")[0] == 0
    found = read_status(run)
    assert found is not None
    assert (found.state, found.step) == ("resumable", before.step)


def test_logs_are_read_only_of_what_is_not_well(command: Command, api: Api) -> None:
    command.submit("--stage", "preprocess")
    instance = next(name for kind, name in api.objects if kind == "ConfigMap")
    labels = {"app.kubernetes.io/instance": instance, "app.kubernetes.io/component": "preprocess"}
    api.logs["submitter"] = (labels, "marlin: of the submitter\n")
    api.logs["worker"] = ({**labels, "ray.io/node-type": "worker"}, "marlin: of a worker\n")
    api.say("RayJob", jobDeploymentStatus="Running")
    assert "marlin: of" not in command.status()
    api.say("RayJob", jobDeploymentStatus="Running", failed=1)
    said = command.status()
    assert "marlin: of the submitter" in said
    assert "of a worker" not in said


def test_a_cluster_that_keeps_silent_is_not_waited_for(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("KUBECONFIG", str(Api(url).kubeconfig(Path(os.environ["KUBECONFIG"]).with_name("silent"))))
        monkeypatch.setattr("pipeline.submit.k8s._TIMEOUT_S", (0.2, 0.2))
        status, _, err = command.submit()
    assert status == 1
    assert f"the cluster at {url} does not answer" in err


def test_what_answers_in_the_place_of_a_cluster_is_named(command: Command, api: Api) -> None:
    api.said["/apis"] = "<html>"
    status, _, err = command.submit()
    assert status == 1
    assert f"the cluster at {api.url} does not answer" in err
    assert err.count("\n") == 1


def test_a_client_serves_all_submissions(command: Command, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    init = Kubernetes.__init__
    monkeypatch.setattr(Kubernetes, "__init__", lambda self, *given: (made.append(given), init(self, *given))[1])
    for _ in range(2):
        command.submit("--stage", "eval")
        command("cancel", "demo", *command.given)
    made.clear()
    command.status()
    command("cancel", "demo", *command.given)
    assert len(made) <= 1


def test_the_last_stage_takes_the_configuration_with_it(command: Command, api: Api) -> None:
    command.submit()
    assert command("cancel", "demo", *command.given)[0] == 0
    assert api.objects == {}


@pytest.mark.parametrize(
    ("kind", "status", "state"),
    [
        ("RayJob", {}, JobState("PENDING", "Controller")),
        ("RayJob", {"jobDeploymentStatus": "Initializing"}, JobState("PENDING", "Initializing")),
        ("RayJob", {"jobDeploymentStatus": "Running", "failed": 1}, JobState("RUNNING", restarts=1)),
        ("RayJob", {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, JobState("COMPLETED")),
        ("RayJob", {"jobDeploymentStatus": "Complete", "jobStatus": "FAILED"}, JobState("FAILED")),
        ("RayJob", {"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, JobState("FAILED")),
        ("RayJob", {"jobDeploymentStatus": "Suspended"}, JobState("PENDING", "Suspended")),
        ("Job", {}, JobState("PENDING", "Controller")),
        ("Job", {"active": 1, "ready": 0}, JobState("PENDING", "Pods")),
        ("Job", {"active": 1, "ready": 1}, JobState("RUNNING")),
        ("Job", {"conditions": [{"type": "Complete", "status": "True"}]}, JobState("COMPLETED")),
        (
            "Job",
            {
                "conditions": [
                    {"type": "Suspended", "status": "True", "reason": "JobSuspended", "message": "Job is\nsuspended"}
                ]
            },
            JobState("PENDING", "JobSuspended: Job is suspended"),
        ),
        ("JobSet", {"replicatedJobsStatus": [{"name": "wait", "ready": 1}]}, JobState("PENDING", "waits for train")),
        (
            "JobSet",
            {"restarts": 2, "replicatedJobsStatus": [{"name": "wait", "succeeded": 1}, {"name": "train", "ready": 1}]},
            JobState("RUNNING", restarts=2),
        ),
        ("JobSet", {"conditions": [{"type": "Completed", "status": "True"}]}, JobState("COMPLETED")),
        (
            "JobSet",
            {
                "conditions": [
                    {"type": "Suspended", "status": "False"},
                    {"type": "Failed", "status": "True", "reason": "X"},
                ]
            },
            JobState("FAILED", "X"),
        ),
    ],
)
def test_what_controllers_write_is_told_in_our_words(kind: str, status: dict[str, Any], state: JobState) -> None:
    assert state_of(kind, status, ["train"]) == state
    assert state.ended == (state.state in ("COMPLETED", "FAILED"))
