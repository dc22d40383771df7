"""Objects in an S3 bucket, on AWS or any server that speaks its protocol (`AWS_ENDPOINT_URL`)."""

import logging
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    FlexibleChecksumError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from pipeline.errors import MarlinError, UsageError
from pipeline.storage.atomic import COPY_BYTES, os_error, whole_file
from pipeline.storage.base import (
    TEMP_PREFIX,
    AlreadyExists,
    ConditionalPutsIgnored,
    Conflict,
    NotFound,
    ObjectInfo,
    Unavailable,
    Versioned,
    check_key,
    check_prefix,
    is_reserved,
)
from pipeline.storage.retry import pause
from pipeline.storage.s3_answers import retry_broken_answers, send_at_once
from pipeline.storage.s3_errors import ABSENT, PAST_END, RACING, TAKEN, UNSUPPORTED, error_code, s3_errors
from pipeline.storage.s3_ranges import SignedRanges

logger = logging.getLogger(__name__)

ATTEMPTS = 8
TRANSFERS = 3
PART_BYTES = 8 << 20
PARALLEL = 4

_TRANSFER = TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=PARALLEL)
_BROKEN_STREAM = (IncompleteReadError, ReadTimeoutError, ResponseStreamingError)
_BROKEN_BODY = (*_BROKEN_STREAM, FlexibleChecksumError)


@dataclass
class _Bucket:
    """What all stores of one bucket share: the client, and what was found out about the server."""

    name: str
    client: Any
    ranges: SignedRanges
    endpoint: str
    exists: bool = False
    conditional: bool | None = None


@dataclass(frozen=True)
class S3Store:
    """A `Store` of the objects below `prefix`. The version of an object is its ETag. Safe to use from threads."""

    prefix: str
    bucket: _Bucket = field(repr=False)

    def __reduce__(self) -> tuple[Callable[[str, str], "S3Store"], tuple[str, str]]:
        # Clients cannot be pickled; another process makes its own from its own environment.
        return open_s3, (self.bucket.name, self.prefix)

    @property
    def url(self) -> str:
        return f"s3://{self.bucket.name}/{self.prefix}".rstrip("/")

    def at(self, sub: str) -> "S3Store":
        return replace(self, prefix=self._name(sub.strip("/")))

    def read(self, key: str) -> bytes:
        return self.read_versioned(key).data

    def read_range(self, key: str, start: int, length: int) -> bytes:
        data = self.bucket.ranges.read(self._name(key), start, length) if length else b""
        if data is None:
            data = self._get(key, Range=f"bytes={start}-{start + length - 1}").data
        if len(data) != length:
            raise MarlinError(
                f"{self.url}/{key}: ends before byte {start + length}: the object is damaged, write it again"
            )
        return data

    def read_versioned(self, key: str) -> Versioned:
        return self._get(key)

    def stream(self, key: str) -> Iterator[bytes]:
        name, client = self._name(key), self.bucket.client
        done, failures = 0, 0
        rest: dict[str, str] = {}
        with self._errors(key):
            while True:
                answer = client.get_object(Bucket=self.bucket.name, Key=name, **rest)
                try:
                    with closing(answer["Body"]) as body:
                        while piece := body.read(COPY_BYTES):
                            done, failures = done + len(piece), 0
                            yield piece
                    return
                except _BROKEN_STREAM:
                    failures += 1
                    if failures == ATTEMPTS:
                        raise
                    time.sleep(pause(failures))
                # The rest of the same version: a client that starts over would hold its caller up, or mix two.
                rest = {"Range": f"bytes={done}-", "IfMatch": answer["ETag"]}

    def write(self, key: str, data: bytes) -> None:
        with self._errors(key):
            self._put(self._name(key), data)

    def write_file(self, key: str, path: Path) -> None:
        name = self._name(key)
        options = {"ExtraArgs": {"ChecksumAlgorithm": "SHA256"}, "Config": _TRANSFER}
        try:
            self._transfer(key, lambda: self.bucket.client.upload_file(str(path), self.bucket.name, name, **options))
        except OSError as error:
            raise os_error(path, error) from None

    def fetch(self, key: str, path: Path) -> None:
        name = self._name(key)
        try:
            with whole_file(path) as file:
                self._transfer(key, partial(self._download, name, file))
        except OSError as error:
            raise os_error(path, error) from None

    def create(self, key: str, data: bytes) -> None:
        if self._put_if(key, data, IfNoneMatch="*") is None:
            raise AlreadyExists(f"{self.url}/{key} exists already and is never overwritten: another run made it")

    def replace(self, key: str, data: bytes, version: str) -> str:
        new = self._put_if(key, data, IfMatch=version)
        if new is None:
            raise Conflict(
                f"{self.url}/{key} was changed or removed by another run meanwhile: read it again and repeat"
            )
        return new

    def size(self, key: str) -> int:
        with self._errors(key):
            return int(self.bucket.client.head_object(Bucket=self.bucket.name, Key=self._name(key))["ContentLength"])

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except NotFound:
            return False
        return True

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        base = f"{self.prefix}/" if self.prefix else ""
        pages = self.bucket.client.get_paginator("list_objects_v2")
        with self._errors():
            found = [
                ObjectInfo(entry["Key"].removeprefix(base), entry["Size"])
                for page in pages.paginate(Bucket=self.bucket.name, Prefix=base + prefix)
                for entry in page.get("Contents", [])
                # Some tools leave empty "folder" objects behind.
                if not entry["Key"].endswith("/") and not is_reserved(entry["Key"])
            ]
        # Not every server lists in the order of the keys' bytes.
        return iter(sorted(found, key=lambda info: info.key))

    def age(self, key: str) -> float:
        with self._errors(key):
            answer = self.bucket.client.head_object(Bucket=self.bucket.name, Key=self._name(key))
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        now = parsedate_to_datetime(date).timestamp() if date else time.time()
        return max(0.0, now - float(answer["LastModified"].timestamp()))

    def delete(self, key: str) -> None:
        with self._errors(key):
            self.bucket.client.delete_object(Bucket=self.bucket.name, Key=self._name(key))

    def local_path(self, key: str) -> Path | None:
        check_key(key)
        return None

    def remove_unfinished(self, prefix: str) -> None:
        check_prefix(prefix)
        place = {"Bucket": self.bucket.name, "Prefix": f"{self.prefix}/{prefix}" if self.prefix else prefix}
        pages = self.bucket.client.get_paginator("list_multipart_uploads")
        with self._errors():
            for upload in [found for page in pages.paginate(**place) for found in page.get("Uploads", [])]:
                self.bucket.client.abort_multipart_upload(
                    Bucket=self.bucket.name, Key=upload["Key"], UploadId=upload["UploadId"]
                )

    def supports_conditional(self) -> bool:
        if self.bucket.conditional is None:
            self.bucket.conditional = self._probe()
        return self.bucket.conditional

    def check(self) -> None:
        self._require_bucket()
        self.bucket.conditional = self._probe()
        if not self.bucket.conditional:
            logger.warning("%s: the server ignores conditional puts; what needs them will refuse to run", self.url)

    def _name(self, key: str) -> str:
        """Full name in the bucket."""
        check_key(key)
        return f"{self.prefix}/{key}" if self.prefix else key

    @contextmanager
    def _errors(self, key: str = "") -> Iterator[None]:
        try:
            with s3_errors(f"{self.url}/{key}" if key else self.url, self.bucket.endpoint):
                yield
        except NotFound:
            # HEAD answers a bare 404 for a missing bucket too: asked once, so that the error names the right thing.
            self._require_bucket()
            raise

    def _require_bucket(self) -> None:
        if self.bucket.exists:
            return
        with s3_errors(self.url, self.bucket.endpoint):
            self.bucket.client.list_objects_v2(Bucket=self.bucket.name, Prefix=self.prefix, MaxKeys=1)
        self.bucket.exists = True

    def _download(self, name: str, file: BinaryIO) -> None:
        file.seek(0)
        file.truncate()
        self.bucket.client.download_fileobj(self.bucket.name, name, file, Config=_TRANSFER)

    def _transfer(self, key: str, transfer: Callable[[], None]) -> None:
        """Move a file, from its beginning again where a part or the server's memory of it was lost for good."""
        for failures in range(1, TRANSFERS):
            try:
                with self._errors(key):
                    transfer()
                return
            except Unavailable:
                time.sleep(pause(failures))
        with self._errors(key):
            transfer()

    def _get(self, key: str, **options: Any) -> Versioned:
        """Bytes and version of an object; with a `Range` that begins past its end, no bytes."""
        name = self._name(key)
        with self._errors(key):
            for attempt in range(ATTEMPTS):
                try:
                    answer = self.bucket.client.get_object(Bucket=self.bucket.name, Key=name, **options)
                    return Versioned(answer["Body"].read(), answer["ETag"])
                except _BROKEN_BODY:
                    # The client retries requests, but not a body that breaks off while it is read.
                    if attempt == ATTEMPTS - 1:
                        raise
                    time.sleep(pause(attempt + 1))
                except ClientError as error:
                    if error_code(error) not in PAST_END:
                        raise
                    break
        return Versioned(b"", "")

    def _put(self, name: str, data: bytes, **condition: Any) -> str:
        """Put under a full name; returns the ETag."""
        answer = self.bucket.client.put_object(
            Bucket=self.bucket.name, Key=name, Body=data, ChecksumAlgorithm="SHA256", **condition
        )
        return str(answer["ETag"])

    def _put_if(self, key: str, data: bytes, **condition: Any) -> str | None:
        """ETag of the new object, or None where the condition does not hold."""
        if not self.supports_conditional():
            raise ConditionalPutsIgnored(
                f"{self.url}: this S3 server ignores conditional puts, so two runs could overwrite each other: "
                "use a server that honours If-None-Match and If-Match, or a shared folder"
            )
        name = self._name(key)
        with self._errors(key):
            for attempt in range(ATTEMPTS):
                try:
                    return self._put(name, data, **condition)
                except ClientError as error:
                    code = error_code(error)
                    if code in TAKEN or code in ABSENT:
                        return self._own_put(key, data, error)
                    if code not in RACING or attempt == ATTEMPTS - 1:
                        raise
                    # Another writer is at it this very moment: S3 asks to try again.
                    time.sleep(pause(attempt + 1))
        return None

    def _own_put(self, key: str, data: bytes, refusal: ClientError) -> str | None:
        """ETag of our own put where only its answer was lost and the client's retry was then refused, else None."""
        if not refusal.response["ResponseMetadata"].get("RetryAttempts"):
            return None
        try:
            current = self.read_versioned(key)
        except NotFound:
            return None
        return current.version if current.data == data else None

    def _probe(self) -> bool:
        """Try both conditional puts on an object of our own, where each must be refused."""
        name = self._name("probe").removesuffix("probe") + f"{TEMP_PREFIX}probe-{uuid.uuid4().hex}"
        with self._errors():
            self._put(name, b"probe")
            try:
                return self._refuses(name, IfNoneMatch="*") and self._refuses(name, IfMatch=f'"{"0" * 32}"')
            finally:
                self.bucket.client.delete_object(Bucket=self.bucket.name, Key=name)

    def _refuses(self, name: str, **condition: Any) -> bool:
        try:
            self._put(name, b"overwritten", **condition)
        except ClientError as error:
            code = error_code(error)
            if code not in TAKEN + UNSUPPORTED:
                raise
            return code in TAKEN
        return False


def open_s3(bucket: str, prefix: str) -> S3Store:
    """The store below `prefix` of a bucket that exists; the AWS_* environment is read now, nothing is asked yet.

    Raises:
        MarlinError: the AWS settings contradict themselves.
        InvalidKey: the prefix cannot be part of a key.
    """
    if prefix:
        check_key(prefix)
    config = Config(
        # AWS_MAX_ATTEMPTS wins where it is set.
        retries={"mode": "standard"}
        if "AWS_MAX_ATTEMPTS" in os.environ
        else {"mode": "standard", "total_max_attempts": ATTEMPTS},
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=32,
    )
    with s3_errors(f"s3://{bucket}", ""):
        try:
            # A session of its own: boto3's default one keeps the credentials it saw first.
            make_client = partial(boto3.session.Session().client, "s3", region_name=os.environ.get("AWS_REGION"))
            client = make_client(config=config)
        except ValueError:
            raise UsageError("AWS_ENDPOINT_URL is not a URL: write it as https://host or http://host:port") from None
    send_at_once(client)
    retry_broken_answers(client, ATTEMPTS)
    signing = config.merge(Config(signature_version="s3v4"))
    ranges = SignedRanges(partial(make_client, config=signing), bucket)
    return S3Store(prefix, _Bucket(bucket, client, ranges, _without_login(client.meta.endpoint_url)))


def _without_login(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
