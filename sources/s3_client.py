"""Makes the clients of an S3 server and of a queue, and translates their errors into ours."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, cast
from urllib.parse import urlsplit

from processing.errors import Misconfigured, SourceUnavailable
from sources.at_once import THREADS

try:
    from botocore import exceptions
    from botocore.config import Config
    from botocore.exceptions import ClientError as ClientError
    from botocore.parsers import ResponseParserError
    from botocore.session import Session
    from botocore.utils import parse_timestamp
    from urllib3.exceptions import HTTPError
except ModuleNotFoundError as error:
    raise Misconfigured(
        f"a bucket needs the package {error.name}: pip install -r requirements/s3.txt"
    ) from None

#: The bytes are not those that were put.
Damaged = exceptions.FlexibleChecksumError

#: Errors in the middle of a body: the connection broke, stood still, or ended too early.
BROKEN = (exceptions.BotoCoreError, HTTPError, OSError)

#: Errors of the settings, which only a person can fix.
_FIXED_BY_A_PERSON = {
    "InvalidAccessKeyId": "it does not know the access key",
    "SignatureDoesNotMatch": "the secret access key is wrong",
    "NoSuchBucket": "there is no such bucket",
    "InvalidBucketName": "there can't be such a bucket",
    "PermanentRedirect": "the bucket is in another region",
    "AuthorizationHeaderMalformed": "the bucket is in another region",
}

_EXPIRED = "the credentials have expired, and no newer ones came yet"

#: Errors that pass, beside those of the server itself (5xx).
_PASSING = {
    "RequestTimeTooSkewed": "the clock of this machine is wrong: it differs too much from the server's",
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "RequestExpired": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "TemporaryRedirect": "it wants to be asked elsewhere for a while",
    "RequestTimeout": "it did not get the request in time",
    "OperationAborted": "another request is in its way",
}

#: Errors that are no BotoCoreError: an answer that botocore can't read, and credentials that it can't renew.
_UNREADABLE = (ResponseParserError, LookupError, RuntimeError, TypeError, ValueError)

_TOO_MANY_REQUESTS, _SERVER_ERRORS = 429, 500


def make_client(endpoint_url: str | None) -> Any:
    """Returns a client; credentials and region come from wherever AWS's own tools take them.

    Raises Misconfigured if one of AWS's own settings is wrong.
    """
    # Other servers do not know the checksums that AWS has added lately.
    checksums = "when_required" if endpoint_url else "when_supported"
    config = Config(
        connect_timeout=3,
        read_timeout=10,
        retries={"mode": "standard", "total_max_attempts": 4},
        max_pool_connections=THREADS,
        request_checksum_calculation=checksums,
        response_checksum_validation=checksums,
        s3={"addressing_style": "path" if endpoint_url else "auto"},
    )
    return _make("s3", endpoint_url, None, config)


def make_queue_client(url: str) -> Any:
    """Returns a client for the server of a queue's address, which on AWS names the region, too.

    Raises Misconfigured if one of AWS's own settings is wrong.
    """
    parts = urlsplit(url)
    labels = (parts.hostname or "").split(".")
    region = labels[1] if labels[0] == "sqs" and len(labels) > 2 else None
    # It waits for messages for up to 20 s.
    config = Config(connect_timeout=3, read_timeout=30, retries={"total_max_attempts": 1})
    return _make("sqs", f"{parts.scheme}://{parts.netloc}", region, config)


def _make(service: str, endpoint_url: str | None, region: str | None, config: Any) -> Any:
    try:
        session = Session()
        parsers = session.get_component("response_parser_factory")
        parsers.set_parser_defaults(timestamp_parser=_time)
        return session.create_client(service, endpoint_url=endpoint_url, region_name=region, config=config)
    except (exceptions.BotoCoreError, ValueError) as error:
        raise Misconfigured(f"can't use the bucket: {error}") from None


def _time(text: str) -> datetime:
    """Reads a time; those of a listing, a thousand of which come at once, without botocore's guesses."""
    if text.endswith("Z"):
        return datetime.fromisoformat(text)
    return cast(datetime, parse_timestamp(text))


def code_of(error: ClientError) -> str:
    """Returns the server's code of an error; the status of an answer without a body."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: ClientError) -> int:
    """Returns the HTTP status of an error."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


@contextmanager
def translated() -> Iterator[None]:
    """Raises SourceUnavailable or Misconfigured for errors of no single object; passes on others."""
    try:
        yield
    except ClientError as error:
        code = code_of(error)
        if code in _FIXED_BY_A_PERSON:
            raise Misconfigured(f"the bucket can't be used: {_FIXED_BY_A_PERSON[code]} ({code})") from None
        if code in _PASSING:
            raise SourceUnavailable(f"{_PASSING[code]} ({code})") from None
        if status_of(error) >= _SERVER_ERRORS or status_of(error) == _TOO_MANY_REQUESTS:
            raise SourceUnavailable(f"the server answers {code or status_of(error)}") from None
        raise
    except (exceptions.NoRegionError, exceptions.ParamValidationError) as error:
        raise Misconfigured(f"the bucket can't be used: {error}") from None
    except exceptions.SSLError as error:
        if _is_untrusted(error):
            raise Misconfigured(f"the bucket can't be used: {error}") from None
        raise SourceUnavailable(str(error)) from None
    except exceptions.BotoCoreError as error:
        raise SourceUnavailable(str(error)) from None
    except RecursionError:  # of botocore, which asks where a redirect leads, and is redirected again
        raise Misconfigured(
            "the bucket can't be used: the bucket is in another region (a redirect)"
        ) from None
    except _UNREADABLE as error:
        raise SourceUnavailable(f"no answer that can be used: {error!r}") from None


def _is_untrusted(error: BaseException | None) -> bool:
    """Returns whether a certificate is the cause; a handshake that breaks may succeed the next time."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error is not None


def is_of_others(error: ClientError) -> bool:
    """Returns whether something before the server answered: S3 gives its own code, but not to a HEAD."""
    return code_of(error).isdecimal() and not error.operation_name.startswith("Head")


def not_listed(place: object, error: ClientError) -> Exception:
    """Returns what an answer in place of a listing means."""
    kind = SourceUnavailable if is_of_others(error) else Misconfigured
    return kind(f"can't list {place}: the server answers {code_of(error)}")
