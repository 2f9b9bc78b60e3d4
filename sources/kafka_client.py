"""Makes clients of Apache Kafka, for topics as a source and as a sink, and translates their errors."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from logging import Logger
from typing import Any, TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from msgspec import Struct

from processing.errors import Misconfigured

#: Errors that a person has to end: rights, passwords, certificates, settings.
_TO_FIX = {
    KafkaError._AUTHENTICATION,
    KafkaError._INVALID_ARG,
    KafkaError._SSL,
    KafkaError._UNSUPPORTED_FEATURE,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.INVALID_CONFIG,
    KafkaError.INVALID_TRANSACTION_TIMEOUT,
    KafkaError.POLICY_VIOLATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM,
    KafkaError.UNSUPPORTED_VERSION,
}

#: The same codes stand for a connection that broke while the client proved who it is.
_BROKEN_OFF = ("handshake failed: Local: ", "SSL transport error: ", "Disconnected: ")

#: Errors of a call that say less than what the client has complained of meanwhile.
_VAGUE = {
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._PURGE_QUEUE,
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
}

#: What differs each time that the same is said.
_TIMING = re.compile(r" \(after \d+ms in state \w+(?:, \d+ identical error\(s\) suppressed)?\)")

#: What anybody may set. After an outage the client tries again soon, not only when 10 s have gone.
_DEFAULTS = {"client.id": "mobileye-data", "reconnect.backoff.max.ms": "1000"}

#: Where the library's own lines go, instead of to standard error; what they say comes as errors, too.
_SILENT = Logger("librdkafka")
_SILENT.disabled = True

T = TypeVar("T")
OnError = Callable[[KafkaError], None]


class Cluster(Struct, frozen=True):
    """The properties by which clients find the brokers, and whatever else librdkafka may be told.

    Each method raises Misconfigured for properties that the client does not know; none connects yet.
    """

    properties: Mapping[str, str]

    def admin(self, on_error: OnError) -> AdminClient:
        """Returns a client for questions; on_error is called when it is polled."""
        return self._make(AdminClient, {}, on_error)

    def consumer(self, settings: Mapping[str, Any], on_error: OnError) -> Consumer:
        """Returns a consumer; on_error is called when it is polled."""
        return self._make(Consumer, settings, on_error)

    def producer(self, settings: Mapping[str, Any], on_error: OnError) -> Producer:
        """Returns a producer; on_error is called when it is polled."""
        return self._make(Producer, settings, on_error)

    def _make(
        self, client: Callable[[dict[str, Any]], T], settings: Mapping[str, Any], on_error: OnError
    ) -> T:
        ours = {"log_level": 0, "logger": _SILENT, **settings, "error_cb": on_error}
        try:
            return client({**_DEFAULTS, **self.properties, **ours})
        except KafkaException as error:
            refusal = error.args[0].str()
            raise Misconfigured(f"Kafka's client refuses the settings KAFKA_…: {refusal}") from None


class Complaints:
    """The last error that clients have told of while they try again: a time-out alone says nothing."""

    def __init__(self, unavailable: type[Exception]) -> None:
        """Takes the error that Kafka's outages are for us."""
        self._unavailable = unavailable
        self._last: KafkaError | None = None

    def take(self, error: KafkaError) -> None:
        """Takes an error, as a callback of a client."""
        if self._last is None or error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._last = error

    def clear(self) -> None:
        """Forgets what was told."""
        self._last = None

    def is_to_fix(self) -> bool:
        """Returns whether trying again is of no use."""
        return self._last is not None and is_to_fix(self._last)

    def explain(self, error: KafkaError) -> Exception:
        """Returns our error for one of a call, which the clients' last error may explain."""
        told = self._last if self._last is not None and error.code() in _VAGUE else error
        text = _TIMING.sub("", told.str())
        return Misconfigured(f"Kafka: {text}") if is_to_fix(told) else self._unavailable(text)

    @contextmanager
    def translated(self, asked: AdminClient | None = None) -> Iterator[None]:
        """Translates errors into ours; a client for questions tells only when asked what it complains of."""
        try:
            yield
        except (KafkaException, TimeoutError) as error:  # of a future, after the process was frozen
            if asked is not None:
                asked.poll(0)
            is_late = isinstance(error, TimeoutError)
            raise self.explain(KafkaError(KafkaError._TIMED_OUT) if is_late else error.args[0]) from None
        if asked is not None:
            asked.poll(0)
            self.clear()


def is_to_fix(error: KafkaError) -> bool:
    """Returns whether only a person can end an error."""
    return error.code() in _TO_FIX and not any(text in error.str() for text in _BROKEN_OFF)
