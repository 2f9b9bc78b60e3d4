"""Makes clients of Apache Kafka, and translates their errors into ours."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from logging import Logger
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from msgspec import Struct

from processing.errors import DatabaseUnavailable, Misconfigured

#: Errors that a person has to end: rights, passwords, certificates, settings.
_TO_FIX = {
    KafkaError._AUTHENTICATION,
    KafkaError._INVALID_ARG,
    KafkaError._SSL,
    KafkaError._UNSUPPORTED_FEATURE,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.INVALID_CONFIG,
    KafkaError.INVALID_TRANSACTION_TIMEOUT,
    KafkaError.POLICY_VIOLATION,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.UNSUPPORTED_SASL_MECHANISM,
    KafkaError.UNSUPPORTED_VERSION,
}


#: Where the library's own lines go, instead of to standard error; what they say comes as errors, too.
_SILENT = Logger("librdkafka")
_SILENT.disabled = True


class Cluster(Struct, frozen=True):
    """The properties by which clients find the brokers, and whatever else librdkafka may be told."""

    properties: Mapping[str, str]

    def admin(self, complaints: "Complaints | None" = None) -> AdminClient:
        return AdminClient(self._settings({}, complaints))

    def consumer(self, settings: Mapping[str, Any], complaints: "Complaints | None" = None) -> Consumer:
        return Consumer(self._settings(settings, complaints))

    def producer(self, settings: Mapping[str, Any], complaints: "Complaints | None" = None) -> Producer:
        return Producer(self._settings(settings, complaints))

    def _settings(self, settings: Mapping[str, Any], complaints: "Complaints | None") -> dict[str, Any]:
        ours = {"log_level": 0, "logger": _SILENT, **settings}
        return {**self.properties, **ours, **({"error_cb": complaints.take} if complaints else {})}


class Complaints:
    """The last error that a client has told of while it tries again: a time-out alone says nothing."""

    def __init__(self) -> None:
        self._last: KafkaError | None = None

    def take(self, error: KafkaError, *_: object) -> None:
        """Takes an error, as a callback of a client."""
        if self._last is None or error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._last = error

    def clear(self) -> None:
        self._last = None

    def is_to_fix(self) -> bool:
        """Returns whether trying again is of no use."""
        return self._last is not None and self._last.code() in _TO_FIX

    def explain(self, error: KafkaError) -> Exception:
        """Returns our error for one of a call, which this client's last error may explain."""
        is_vague = error.code() in (KafkaError._TIMED_OUT, KafkaError._TRANSPORT, KafkaError._PURGE_QUEUE)
        return translated(self._last if self._last is not None and is_vague else error)


def translated(error: KafkaError) -> Exception:
    """Returns our error for one of Kafka's."""
    text = error.str()
    if error.code() in _TO_FIX:
        return Misconfigured(f"Kafka: {text}")
    return DatabaseUnavailable(text)


@contextmanager
def translate_errors(complaints: Complaints | None = None) -> Iterator[None]:
    """Translates errors into ours."""
    try:
        yield
    except KafkaException as error:
        found: KafkaError = error.args[0]
        raise (complaints.explain(found) if complaints else translated(found)) from None
