"""The Kubernetes API: manifests in, plain values out."""

import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import ResourceNotFoundError
from urllib3.exceptions import HTTPError

from pipeline.errors import MarlinError
from pipeline.submit.k8s_state import state_of
from pipeline.submit.record import Job
from pipeline.submit.schedulers import last_words
from pipeline.submit.state import JobState
from pipeline.text import first_line, printable

Manifest = dict[str, Any]

GROUPS = {"RayJob": "ray.io/v1", "JobSet": "jobset.x-k8s.io/v1alpha2", "Job": "batch/v1"}
_OPERATORS = {"RayJob": "KubeRay", "JobSet": "JobSet"}
_MANAGER = "marlin"
_TIMEOUT_S = (5, 30)  # to connect, and for an answer
_LINES = 200
_NOT_FOUND = 404
_Answer = TypeVar("_Answer")
_log = logging.getLogger(__name__)


class Kubernetes:
    """A namespace of a cluster.

    Args:
        context: of the kubeconfig; empty: the current one.
        namespace: of all objects.

    Attributes:
        context: its name, also where none was given.

    Raises:
        MarlinError: there is no configuration of a cluster, or the cluster does not answer.
    """

    def __init__(self, context: str, namespace: str) -> None:
        self._namespace = namespace
        try:
            file = os.environ.get("KUBECONFIG")
            # The current context of today may be another tomorrow.
            self.context = context or str(config.list_kube_config_contexts(file)[1]["name"])
            settings = client.Configuration()
            config.load_kube_config(file, self.context, client_configuration=settings)
        except (config.ConfigException, yaml.YAMLError, OSError) as error:
            said = printable(" ".join(str(error).split()))
            raise MarlinError(f"no cluster to submit to: {said}: set KUBECONFIG, or launch.k8s.context") from None
        settings.retries = 2
        self._api = _Client(settings)
        with tempfile.TemporaryDirectory() as folder:  # the client's default is a file of a known name in /tmp
            cache = str(Path(folder) / "discovery.json")
            self._objects = self._ask("the cluster", lambda: DynamicClient(self._api, cache_file=cache))

    def apply(self, manifest: Manifest) -> str:
        """Server-side apply of one object; returns its uid.

        Raises:
            MarlinError: the cluster refuses it, with its words.
        """
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        resource = self._resource(manifest["apiVersion"], kind)
        answer = self._ask(
            f"{kind} {name}",
            lambda: self._objects.server_side_apply(
                resource,
                body=manifest,
                name=name,
                namespace=self._namespace,
                field_manager=_MANAGER,
            ),
        )
        return str(answer.metadata.uid)

    def delete(self, kind: str, api_version: str, name: str) -> None:
        """Delete an object after what it owns; one that is gone already is no error.

        Raises:
            MarlinError: the cluster refuses.
        """
        resource = self._resource(api_version, kind)
        try:
            self._ask(
                f"{kind} {name}",
                lambda: self._objects.delete(
                    resource,
                    name=name,
                    namespace=self._namespace,
                    propagation_policy="Foreground",  # there until its pods are gone
                ),
            )
        except NotThere:
            _log.info("%s %s is gone already", kind, name)

    def states(self, job: Job) -> list[JobState]:
        """How an object stands; UNKNOWN where it is gone.

        Raises:
            MarlinError: the cluster does not answer.
        """
        resource = self._resource(GROUPS[job.kind], job.kind)
        try:
            found = self._ask(
                f"{job.kind} {job.number}",
                lambda: self._objects.get(resource, name=job.number, namespace=self._namespace),
            )
        except NotThere:
            return [JobState("UNKNOWN", "deleted: cancelled, or cleaned up after its end")]
        whole = found.to_dict()
        state = state_of(job.kind, whole.get("status") or {}, job.after)
        if whole["metadata"].get("deletionTimestamp") and not state.ended:
            state = JobState("COMPLETING", "cancelled: its pods save and stop", restarts=state.restarts)
        return [state]

    def cancel(self, jobs: Sequence[Job]) -> None:
        """Delete objects; their pods are told to stop, and save."""
        for job in jobs:
            self.delete(job.kind, GROUPS[job.kind], job.number)

    def logs(self, job: Job, *, words: bool) -> Iterator[str]:
        """The command that shows the logs; with `words` what marlin said last of an error in each pod's."""
        yield job.log
        if not words:
            return
        core = client.CoreV1Api(self._api)
        stage = f"app.kubernetes.io/component={job.stage}"
        instance = f"app.kubernetes.io/instance={job.number.removesuffix(f'-{job.stage}')}"
        pods = self._ask(
            "its pods",
            lambda: core.list_namespaced_pod(self._namespace, label_selector=f"{stage},{instance},!ray.io/node-type"),
        )
        said = set()  # of Ray's pods the one that submits tells what the job said
        for pod in pods.items:
            try:
                text = core.read_namespaced_pod_log(pod.metadata.name, self._namespace, tail_lines=_LINES)
            except (ApiException, HTTPError):
                continue  # it has not begun, or is being removed
            said |= set(last_words(text))
        yield from sorted(said)

    def _resource(self, api_version: str, kind: str) -> Any:
        try:
            return self._ask("the cluster", lambda: self._objects.resources.get(api_version=api_version, kind=kind))
        except ResourceNotFoundError:
            operator = _OPERATORS.get(kind)
            fix = f"install {operator} (docs/kubernetes.md)" if operator else "use Kubernetes 1.31 or newer"
            raise MarlinError(f"the cluster knows no {kind} of {api_version}: {fix}") from None

    def _ask(self, about: str, call: Callable[[], _Answer]) -> _Answer:
        try:
            return call()
        except ApiException as error:
            if error.status == _NOT_FOUND and about != "the cluster":
                raise NotThere(f"{about}: {_words(error)}: apply k8s/site, or set launch.k8s.namespace") from None
            raise MarlinError(f"Kubernetes refuses {about}: {_words(error)}") from None
        except (HTTPError, ValueError, AttributeError) as error:  # the latter two where what answers is no such server
            host = self._api.configuration.host
            raise MarlinError(f"the cluster at {host} does not answer: {printable(first_line(error))}") from None


class _Client(client.ApiClient):  # type: ignore[misc]
    """Waits for no answer for ever, also where the library's own calls set no limit."""

    def call_api(self, *arguments: Any, **options: Any) -> Any:
        return super().call_api(*arguments, **options | {"_request_timeout": _TIMEOUT_S})


class NotThere(MarlinError):
    """The object, or its namespace, is not there."""


def _words(error: ApiException) -> str:
    try:
        text = str(json.loads(error.body)["message"])
    except (ValueError, KeyError, TypeError):
        text = str(error.reason or error.status)
    return printable(" ".join(text.split()))
