"""Ranges of S3 objects by signed URLs: less than half of the client's usual work, which counts at hundreds a second."""

import logging
import time
from collections.abc import Callable
from threading import Lock
from typing import Any

from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError
from urllib3.exceptions import HTTPError

_log = logging.getLogger(__name__)

_SIGNED_S = 3600
_MOST_REFUSALS = 3


class SignedRanges:
    """The quick way to a range. Whatever is not plain success is left to the client, which retries and explains.

    One signature serves every range of an object, as it does not cover the Range header. Safe for threads.
    """

    def __init__(self, make_client: Callable[[], Any], bucket: str) -> None:
        """`make_client`: gives one that signs with version 4, which all servers take; its connections are used."""
        self._make_client = make_client
        self._making = Lock()
        self._made: Any = None
        self._bucket = bucket
        self._urls: dict[str, tuple[str, float]] = {}
        self._refusals = 0

    def read(self, name: str, start: int, length: int) -> bytes | None:
        """The bytes, or None where the server did not give exactly these."""
        if self._refusals >= _MOST_REFUSALS:  # signed URLs are not for this server, or the bucket is elsewhere
            return None
        try:
            headers = {"Range": f"bytes={start}-{start + length - 1}", "Accept-Encoding": "identity"}
            url, is_new = self._url(name)
            request = AWSRequest("GET", url, headers).prepare()
            # boto3 has no public way to send what it did not sign; so proxies and certificates are those of the client.
            answer = self._client()._endpoint.http_session.send(request)
            data = bytes(answer.content)
        except (BotoCoreError, HTTPError):
            return None
        if answer.status_code == 206 and len(data) == length:
            self._refusals = 0
            return data
        self._urls.pop(name, None)
        # An older signature may have ended with its credentials; a new one says what this server thinks of them all.
        if is_new and 300 <= answer.status_code < 404:
            self._refuse(answer.status_code)
        return None

    def _refuse(self, status: int) -> None:
        self._refusals += 1
        if self._refusals == _MOST_REFUSALS:
            _log.info("bucket %s answers signed URLs with HTTP %d: ranges are read without them", self._bucket, status)

    def _client(self) -> Any:
        with self._making:
            if self._made is None:
                self._made = self._make_client()
            return self._made

    def _url(self, name: str) -> tuple[str, bool]:
        """A signed URL of an object, and whether it was made just now."""
        url, expires = self._urls.get(name, ("", 0.0))
        is_new = time.monotonic() > expires
        if is_new:
            place = {"Bucket": self._bucket, "Key": name}
            url = self._client().generate_presigned_url("get_object", Params=place, ExpiresIn=_SIGNED_S)
            self._urls[name] = url, time.monotonic() + _SIGNED_S / 2
        return url, is_new
