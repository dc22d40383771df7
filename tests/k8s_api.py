"""A stand-in for a Kubernetes API server, plain HTTP: discovery, server-side apply, objects, pods' logs."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml
from k8s_schemas import validate

Manifest = dict[str, Any]
# Plural of each kind, by API version.
_RESOURCES = {
    "v1": {"ConfigMap": "configmaps", "Pod": "pods"},
    "batch/v1": {"Job": "jobs"},
    "policy/v1": {"PodDisruptionBudget": "poddisruptionbudgets"},
    "jobset.x-k8s.io/v1alpha2": {"JobSet": "jobsets"},
    "ray.io/v1": {"RayJob": "rayjobs"},
}


@dataclass
class Api:
    """What the server holds, and what it was asked.

    Attributes:
        url: of the server.
        objects: by kind and name.
        namespaces: that exist.
        calls: method, and kind and name or path, in their order; discovery left out.
        forbidden: kinds that may not be applied, and the server's words.
        groups: API versions that it knows.
        logs: of pods, by name, and their labels.
        lingering: pods take their time to stop, so that what is deleted stays there, marked.
        said: what is answered to a path in place of what Kubernetes does.
    """

    url: str
    objects: dict[tuple[str, str], Manifest] = field(default_factory=dict)
    namespaces: set[str] = field(default_factory=lambda: {"marlin"})
    calls: list[tuple[str, str]] = field(default_factory=list)
    forbidden: dict[str, str] = field(default_factory=dict)
    groups: set[str] = field(default_factory=lambda: set(_RESOURCES))
    logs: dict[str, tuple[Mapping[str, str], str]] = field(default_factory=dict)
    lingering: bool = False
    said: dict[str, str] = field(default_factory=dict)

    def kubeconfig(self, path: Path, context: str = "here") -> Path:
        """A file that leads to the server."""
        named = {"name": context}
        tree = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": context,
            "clusters": [{**named, "cluster": {"server": self.url}}],
            "users": [{**named, "user": {"token": "secret-token"}}],
            "contexts": [{**named, "context": {"cluster": context, "user": context}}],
        }
        path.write_text(yaml.safe_dump(tree))
        return path

    def kinds(self) -> list[str]:
        """Of the objects, in the order in which they came."""
        return [kind for kind, _ in self.objects]

    def say(self, kind: str, **status: Any) -> None:
        """What a controller writes into the status of the one object of a kind."""
        (found,) = [each for (its, _), each in self.objects.items() if its == kind]
        found["status"] = status


@contextmanager
def run_api() -> Iterator[Api]:
    """Serve until the end of the block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    api = Api(f"http://127.0.0.1:{server.server_address[1]}")
    server.api = api  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self._answer(self._get)

    def do_PATCH(self) -> None:
        self._answer(self._apply)

    def do_DELETE(self) -> None:
        self._answer(self._delete)

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    @property
    def _api(self) -> Api:
        return self.server.api  # type: ignore[attr-defined]

    def _answer(self, work: Any) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self._body = self.rfile.read(length)
        split = urlsplit(self.path)
        self._query = {key: values[0] for key, values in parse_qs(split.query).items()}
        try:
            if self.headers["Authorization"] != "Bearer secret-token":
                raise _Refused(401, "Unauthorized")
            status, answer = 200, work(split.path)
        except _Refused as refused:
            status, answer = refused.status, {"kind": "Status", "message": str(refused), "code": refused.status}
        text = answer.encode() if isinstance(answer, str) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain" if isinstance(answer, str) else "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def _get(self, path: str) -> Any:
        if path in self._api.said:
            return self._api.said[path]
        if path == "/version":
            return {"major": "1", "minor": "32", "gitVersion": "v1.32.0"}
        if path == "/apis":
            return {
                "kind": "APIGroupList",
                "groups": [_group(version) for version in sorted(self._api.groups - {"v1"})],
            }
        if path.removeprefix("/api/").removeprefix("/apis/") in _RESOURCES:
            version = path.removeprefix("/api/").removeprefix("/apis/")
            return {"kind": "APIResourceList", "groupVersion": version, "resources": _resources(version)}
        if "/pods" in path:
            return self._pods(path)
        kind, name = self._named(path)
        self._api.calls.append(("GET", f"{kind} {name}"))
        return self._found(kind, name)

    def _pods(self, path: str) -> Any:
        self._namespace(path)
        if path.endswith("/log"):
            return self._api.logs[path.split("/")[-2]][1]
        words = self._query["labelSelector"].split(",")
        wanted = dict(word.split("=") for word in words if "=" in word)
        unwanted = {word.removeprefix("!") for word in words if word.startswith("!")}
        pods = [
            {"metadata": {"name": name, "labels": dict(labels)}}
            for name, (labels, _) in self._api.logs.items()
            if wanted.items() <= labels.items() and not unwanted & set(labels)
        ]
        return {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": pods}

    def _apply(self, path: str) -> Any:
        kind, name = self._named(path)
        self._api.calls.append(("PATCH", f"{kind} {name}"))
        if self.headers["Content-Type"] != "application/apply-patch+yaml" or not self._query.get("fieldManager"):
            raise _Refused(415, "no server-side apply")
        manifest = yaml.safe_load(self._body)
        assert (manifest["kind"], manifest["metadata"]["name"]) == (kind, name)
        assert manifest["metadata"]["namespace"] == self._namespace(path)
        if kind in self._api.forbidden:
            raise _Refused(403, self._api.forbidden[kind])
        owners = manifest["metadata"].pop("ownerReferences", [])
        validate(manifest)
        before = self._api.objects.get((kind, name))
        if before is not None and any(before.get(part) != manifest.get(part) for part in ("spec", "data")):
            raise _Refused(422, f"{kind} {name} is invalid: field is immutable")
        manifest["metadata"] |= {"uid": f"uid-of-{name}", "ownerReferences": owners}
        self._api.objects[kind, name] = manifest
        return manifest

    def _delete(self, path: str) -> Any:
        kind, name = self._named(path)
        self._api.calls.append(("DELETE", f"{kind} {name}"))
        if self._query.get("propagationPolicy") != "Foreground":
            raise _Refused(400, "pods would stay, or outlive it")
        metadata = self._found(kind, name)["metadata"]
        if self._api.lingering:
            metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            return self._found(kind, name)
        uid = metadata["uid"]
        del self._api.objects[kind, name]
        for key, each in list(self._api.objects.items()):  # as the garbage collector does
            owners = each["metadata"]["ownerReferences"]
            each["metadata"]["ownerReferences"] = [owner for owner in owners if owner["uid"] != uid]
            if owners and not each["metadata"]["ownerReferences"]:
                del self._api.objects[key]
        return {"kind": "Status", "status": "Success"}

    def _found(self, kind: str, name: str) -> Manifest:
        if (kind, name) not in self._api.objects:
            raise _Refused(404, f'{kind} "{name}" not found')
        return self._api.objects[kind, name]

    def _named(self, path: str) -> tuple[str, str]:
        self._namespace(path)
        for version, kinds in _RESOURCES.items():
            for kind, plural in kinds.items():
                if f"/{version}/namespaces/" in path and path.split("/")[-2] == plural and version in self._api.groups:
                    return kind, path.rsplit("/", maxsplit=1)[-1]
        raise _Refused(404, "the server could not find the requested resource")

    def _namespace(self, path: str) -> str:
        namespace = path.partition("/namespaces/")[2].split("/")[0]
        if namespace not in self._api.namespaces:
            raise _Refused(404, f'namespaces "{namespace}" not found')
        return namespace


def _group(version: str) -> Manifest:
    name, _, short = version.partition("/")
    served = {"groupVersion": version, "version": short}
    return {"name": name, "versions": [served], "preferredVersion": served}


def _resources(version: str) -> list[Manifest]:
    verbs = ["create", "delete", "get", "list", "patch"]
    return [
        {"name": plural, "kind": kind, "namespaced": True, "singularName": kind.lower(), "verbs": verbs}
        for kind, plural in _RESOURCES[version].items()
    ]
