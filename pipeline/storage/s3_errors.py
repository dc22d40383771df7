"""What S3's failures mean, in one line that names the object and the fix and never a secret."""

from collections.abc import Iterator
from contextlib import contextmanager

from boto3.exceptions import Boto3Error
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
)
from botocore.exceptions import ConnectionError as BotoConnectionError
from botocore.parsers import ResponseParserError
from s3transfer.exceptions import RetriesExceededError

from pipeline.errors import MarlinError
from pipeline.storage.base import Denied, NotFound, Unavailable

TAKEN = ("PreconditionFailed", "412")
RACING = ("ConditionalRequestConflict", "409")
ABSENT = ("NoSuchKey", "404", "NotFound")
PAST_END = ("InvalidRange", "416")
UNSUPPORTED = ("NotImplemented", "501")
_NETWORK = (
    BotoConnectionError,
    HTTPClientError,
    IncompleteReadError,
    FlexibleChecksumError,
    ResponseParserError,  # an answer that broke off
    RetriesExceededError,  # parts of a file that did not come whole
)
# The server did not get what was sent, is busy, or lost an upload half-way: the same may succeed when it is sent again.
_PASSING = (
    *("RequestTimeout", "IncompleteBody", "BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch"),
    *("SlowDown", "Throttling", "ThrottlingException", "RequestThrottled", "TooManyRequests"),
    *("NoSuchUpload", "InvalidPart", "OperationAborted"),
)
# What was noted of the parts is wrong, as the answer to one of them broke off: the whole file must be sent again.
_WRONG_PARTS = ("InvalidRequest", "InvalidPartOrder", "MalformedXML")
_PASSING_STATUS = (408, 429, 500, 502, 503, 504)
_BAD_CREDENTIALS = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "InvalidSecurity")
_DENIED = ("AccessDenied", "403", "Forbidden", "AllAccessDisabled", "InvalidObjectState")


def error_code(error: ClientError) -> str:
    """The service's name of the failure; HEAD requests only have the HTTP status."""
    return str(error.response.get("Error", {}).get("Code", "unknown"))


def bucket_of(url: str) -> str:
    """Bucket of an s3:// URL."""
    return url.removeprefix("s3://").partition("/")[0]


@contextmanager
def s3_errors(url: str, endpoint: str) -> Iterator[None]:
    """Turn boto3's exceptions about the object or prefix `url` into `MarlinError`; `endpoint` is named as it is."""
    try:
        yield
    except Boto3Error as error:
        # The transfer manager wraps what the service answered into a text; the cause is still attached.
        cause = error.__context__
        raise translate(cause if isinstance(cause, ClientError) else error, url, endpoint) from None
    except (ClientError, BotoCoreError, ResponseParserError, RetriesExceededError) as error:
        raise translate(error, url, endpoint) from None


def translate(error: Exception, url: str, endpoint: str) -> MarlinError:
    """The error to show for a failed request about `url`."""
    if isinstance(error, ClientError):
        return _service_error(error_code(error), error, url)
    if isinstance(error, NoCredentialsError | PartialCredentialsError | CredentialRetrievalError):
        return MarlinError(f"{url}: no S3 credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE")
    if isinstance(error, ProfileNotFound):
        return MarlinError(f"{url}: AWS_PROFILE names a profile that does not exist: correct it or unset it")
    if isinstance(error, _NETWORK):
        kind = type(getattr(error, "last_exception", error)).__name__
        return Unavailable(
            f"{url}: cannot reach the S3 server at {endpoint} ({kind}): check AWS_ENDPOINT_URL and the network"
        )
    if isinstance(error, ParamValidationError):
        return MarlinError(f"{url}: {bucket_of(url)!r} cannot be the name of a bucket: correct the URL")
    # Their texts may quote what was configured, credentials included: name the kind only.
    return MarlinError(
        f"{url}: the S3 client failed ({type(error).__name__}): check the AWS_* settings and ~/.aws/config"
    )


def _service_error(code: str, error: ClientError, url: str) -> MarlinError:
    bucket = bucket_of(url)
    if code == "NoSuchBucket":
        return MarlinError(f"{url}: bucket {bucket!r} does not exist: create it, or correct the bucket's name")
    if code in ABSENT:
        return NotFound(f"{url}: no such object: check the URL, or run the stage that writes it")
    if code in _BAD_CREDENTIALS:
        return MarlinError(
            f"{url}: the server refused the credentials ({code}): check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY "
            "and AWS_SESSION_TOKEN"
        )
    if code in _DENIED:
        return Denied(
            f"{url}: access denied: check the credentials, and that they may list, read, write and delete "
            f"in bucket {bucket!r}"
        )
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", "?")
    wrong_parts = error.operation_name == "CompleteMultipartUpload" and code in _WRONG_PARTS
    kind = Unavailable if wrong_parts or code in _PASSING or status in _PASSING_STATUS else MarlinError
    return kind(
        f"{url}: S3 {error.operation_name} failed ({code}, HTTP {status}): see the server's log, then run again"
    )
