"""Answers that break off in their headers: Python's HTTP client takes those for whole, and a listing for empty.

Both functions use botocore's events, in which its own retries are written too.
"""

from typing import Any

from botocore.exceptions import ConnectionClosedError

from pipeline.storage.retry import pause

_NO_BODY = 204
_WITH_ETAG = ("PutObject", "UploadPart", "GetObject", "HeadObject")


def send_at_once(client: Any) -> None:
    """Let an S3 client send bodies without asking first whether they are wanted.

    botocore reads for ever where the answer to that question breaks off (`AWSConnection._consume_headers`).
    """

    def forget_to_ask(params: Any, **_: Any) -> None:
        params["headers"].pop("Expect", None)

    client.meta.events.register_last("before-call.s3", forget_to_ask)


def retry_broken_answers(client: Any, attempts: int) -> None:
    """Let an S3 client send a request again whose answer broke off in its headers, so many times in all.

    Then it raises botocore's `ConnectionClosedError`.
    """

    def needs_retry(**event: Any) -> float | None:
        """Seconds after which to try again."""
        answer = event["response"] and event["response"][0]
        if not answer or not 200 <= answer.status_code < 300 or not is_broken(event["operation"], answer):
            return None
        if event["attempts"] >= attempts:
            raise ConnectionClosedError(endpoint_url=answer.url)
        return pause(event["attempts"])

    client.meta.events.register_first("needs-retry.s3", needs_retry)


def is_broken(operation: Any, answer: Any) -> bool:
    """Whether a good answer lacks what it must have: the length of its body, that body, or the version of its object.

    Args:
        operation: botocore's model of what was asked.
        answer: botocore's answer. A body that is streamed is left to its reader, who counts.
    """
    headers = answer.headers
    length = headers.get("Content-Length", "")
    chunked = headers.get("Transfer-Encoding", "").lower() == "chunked"  # the value may have broken off too
    ends_with_connection = headers.get("Connection", "").lower() == "close"
    if not (length.isdigit() or chunked or ends_with_connection or answer.status_code == _NO_BODY):
        return True
    if operation.name in _WITH_ETAG and "ETag" not in headers:
        return True
    is_whole_here = length.isdigit() and operation.http["method"] != "HEAD" and not operation.has_streaming_output
    return is_whole_here and len(answer.content) != int(length)
