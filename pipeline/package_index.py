"""Fetch one pinned file of a project from the user's Python package index, resumable, without running any of it."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import BinaryIO, NoReturn
from urllib.parse import unquote, urlsplit, urlunsplit

import requests
from pypi_simple import NoSuchProjectError, PyPISimple
from requests.auth import AuthBase, HTTPBasicAuth
from tqdm import tqdm

from pipeline.errors import MarlinError
from pipeline.storage.atomic import os_error
from pipeline.storage.manifest import FileEntry, sha256_file

CHUNK_BYTES = 1 << 16
TIMEOUT_S = (10.0, 60.0)


class IndexUnreachable(MarlinError):
    """The package index gives no usable answer: no network, wrong address, wrong login."""


def fetch_package(project: str, entry: FileEntry, folder: Path, *, progress: bool) -> Path:
    """Download the file `entry.name` of `project` into `folder` and return its path.

    What an earlier, interrupted call left is continued. A file with the wrong hash is removed. One caller at a time.

    Raises:
        IndexUnreachable: no answer from the index.
        MarlinError: the index lacks the file, the transfer broke off, the disk is full, or the
            bytes are not the pinned ones.
    """
    part = folder / f"{entry.name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if _size(part) != entry.size:
            _download(project, entry, part, progress=progress)
        if sha256_file(part) != entry.sha256:
            part.unlink()
            raise MarlinError(
                f"{entry.name}: what was downloaded does not have the pinned sha256 {entry.sha256[:12]}… and was "
                "removed: run again, or use another index (PIP_INDEX_URL)"
            )
    except OSError as error:
        raise os_error(part, error) from None
    return part


def index_url() -> str | None:
    """The index that the user configured for pip or uv, or None for the usual public one.

    Raises:
        MarlinError: pip has settings that it can't read.
    """
    for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL"):
        if url := os.environ.get(name):
            return url
    found = _pip_setting("global.index-url")
    if found is None and importlib.util.find_spec("pip") is not None:
        _check_readable(re.findall(r"^  (.+), exists: True$", _pip_config("debug"), re.MULTILINE))
    return found


def _pip_setting(name: str) -> str | None:
    """A setting of pip's files, None where there is none."""
    if importlib.util.find_spec("pip") is None:
        return None
    # `pip config get` of older releases misses what PIP_CONFIG_FILE sets; `list` shows all that is in force.
    for line in _pip_config("list").splitlines():
        key, _, value = line.partition("=")
        if key == name:
            return str(ast.literal_eval(value))
    return None


def _pip_config(verb: str) -> str:
    command = [sys.executable, "-m", "pip", "config", verb]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        # What pip says may quote a line with a login.
        raise MarlinError(
            f"pip cannot read its settings: mend the file that `pip config {verb}` names, or set PIP_INDEX_URL"
        )
    return answer.stdout


def _check_readable(files: list[str]) -> None:
    """pip passes over settings that it may not open, and would ask the public index."""
    for file in files:
        try:
            Path(file).open().close()
        except OSError as error:
            raise MarlinError(
                f"{file}: pip cannot read its settings ({error.strerror}): make them readable, or set PIP_INDEX_URL"
            ) from None


class _IndexLogin(AuthBase):
    """Sends the login of the index's URL to the index's own host and to no other."""

    def __init__(self, host: str, login: HTTPBasicAuth) -> None:
        self._host = host
        self._login = login

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if urlsplit(request.url or "").netloc == self._host:
            self._login(request)
        return request


def _download(project: str, entry: FileEntry, part: Path, *, progress: bool) -> None:
    """Bring `part` to its full size, going on from where it is for as long as bytes arrive."""
    if _size(part) > entry.size:
        part.unlink()
    with _client() as client, requests.Session() as session:
        session.auth, session.verify = client.s.auth, client.s.verify
        url = _locate(client, project, entry.name)
        bar = tqdm(
            total=entry.size, initial=_size(part), desc=entry.name[:40], unit="B", unit_scale=True, disable=not progress
        )
        with bar:
            while (before := _size(part)) < entry.size:
                reason = _transfer(session, url, part, entry.size, bar)
                if _size(part) <= before:
                    raise MarlinError(
                        f"{entry.name}: the download stopped at {_size(part)} of {entry.size} bytes ({reason}): "
                        "check the network and run again, it continues there"
                    )


def _client() -> PyPISimple:
    session = requests.Session()
    session.verify = os.environ.get("PIP_CERT") or _pip_setting("global.cert") or True
    url = index_url()
    if url is None:
        return PyPISimple(session=session)
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    if parts.username:
        session.auth = _IndexLogin(host, HTTPBasicAuth(unquote(parts.username), unquote(parts.password or "")))
    # Without the login, so that no message can quote it.
    return PyPISimple(urlunsplit((parts.scheme, host, parts.path, parts.query, "")), session=session)


def _locate(client: PyPISimple, project: str, name: str) -> str:
    try:
        page = client.get_project_page(project, timeout=TIMEOUT_S)
    except NoSuchProjectError:
        raise MarlinError(
            f"the package index {client.endpoint} has no project {project!r}: set PIP_INDEX_URL"
        ) from None
    except (requests.RequestException, ValueError) as error:
        raise IndexUnreachable(
            f"cannot reach the package index {client.endpoint} ({_reason(error)}): connect, or set PIP_INDEX_URL"
        ) from None
    for package in page.packages:
        if package.filename == name:
            return package.url
    raise MarlinError(f"the package index {client.endpoint} has no file {name} of {project!r}: set PIP_INDEX_URL")


def _transfer(session: requests.Session, url: str, part: Path, size: int, bar: "tqdm[NoReturn]") -> str:
    """Append what one request brings; returns why it ended."""
    start = _size(part)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        with session.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as answer:
            answer.raise_for_status()
            resumed = answer.headers.get("Content-Range", "").startswith(f"bytes {start}-")
            if start and not resumed:
                # The server does not know ranges: it sends the whole file again.
                bar.reset()
            with part.open("ab" if resumed else "wb") as file:
                _append(answer, file, size - (start if resumed else 0), bar)
    except requests.RequestException as error:
        return _reason(error)
    return "connection closed"


def _append(answer: requests.Response, file: BinaryIO, room: int, bar: "tqdm[NoReturn]") -> None:
    for chunk in answer.iter_content(CHUNK_BYTES):
        # Never more than was pinned, whatever the server sends.
        kept = chunk[:room]
        file.write(kept)
        bar.update(len(kept))
        room -= len(kept)
        if room == 0:
            return


def _reason(error: Exception) -> str:
    """A short cause without URLs, which may hold a login."""
    response = getattr(error, "response", None)
    return f"HTTP {response.status_code}" if response is not None else type(error).__name__


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
