"""Makes clients of Apache Kafka, for topics as a source and as a sink, and translates their errors."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from logging import Handler, Logger, LogRecord
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

#: How a broker refuses the certificate of a client, or that it has none: 116 is "certificate required".
_REFUSED_CERTIFICATE = re.compile(r"SSL alert number (?:4[2-689]|116)\b")

#: Errors of a call that say less than what the client has complained of meanwhile.
_VAGUE = {
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._PURGE_QUEUE,
    KafkaError._TIMED_OUT,
    KafkaError._TRANSPORT,
}

#: Errors of a connection that could not be made, or broke.
_UNREACHED = {KafkaError._RESOLVE, KafkaError._TRANSPORT}

#: Names of properties in what librdkafka says; a person sets them as KAFKA_<NAME>.
_PROPERTY = re.compile(
    r'(?:(?<=property )|(?<=property: ))"([a-z0-9._]+)"'
    r"|\b(security\.protocol|ssl\.(?:ca|certificate|key)\.location)\b"
)

#: A broker that others have named: its address, and its number.
_LEARNED = re.compile(r"(?:\w+://)?([^/\s]+)/\d+: ")

#: The client repeats each half a minute what is still so.
_TOLD_SECONDS = 60.0

#: What differs each time that the same is said.
_TIMING = re.compile(r" \(after \d+ms in state \w+(?:, \d+ identical error\(s\) suppressed)?\)")

#: Where a broker that speaks TLS ends the connection of a client that does not.
_FIRST_QUESTION = "in state APIVERSION_QUERY"

#: What anybody may set. After an outage the client tries again soon, not only when 10 s have gone.
_DEFAULTS = {"client.id": "mobileye-data", "reconnect.backoff.max.ms": "1000"}

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

    def complaints(self, unavailable: type[Exception]) -> "Complaints":
        """Returns what takes the errors of clients; an outage of Kafka is this error of ours."""
        return Complaints(unavailable, self.properties["bootstrap.servers"])

    def _make(
        self, client: Callable[[dict[str, Any]], T], settings: Mapping[str, Any], on_error: OnError
    ) -> T:
        logger = Logger("librdkafka")  # else its lines would go to standard error
        logger.addHandler(_Disconnections(on_error))
        ours = {"logger": logger, **settings, "error_cb": on_error}
        try:
            return client({**_DEFAULTS, **self.properties, **ours})
        except KafkaException as error:
            refusal = _in_our_words(error.args[0])
            raise Misconfigured(f"Kafka's client refuses the settings: {refusal}") from None


class _Disconnections(Handler):
    """Makes errors of connections that brokers end, of which librdkafka only writes a line."""

    def __init__(self, on_error: OnError) -> None:
        super().__init__()
        self._on_error = on_error

    def emit(self, record: LogRecord) -> None:
        """Takes a line: what it is about, the client, and the thread with the text."""
        subject, _, line = record.args if isinstance(record.args, tuple) else ("", "", "")
        text = str(line).partition("]: ")[2]
        if subject == "FAIL" and ": Disconnected" in text:
            if _FIRST_QUESTION in text:
                text = f"{_TIMING.sub('', text)}; perhaps it wants another KAFKA_SECURITY_PROTOCOL"
            self._on_error(KafkaError(KafkaError._TRANSPORT, text))


class Complaints:
    """The last error that clients have reported while they try again: a time-out alone says nothing."""

    def __init__(self, unavailable: type[Exception], servers: str) -> None:
        """Takes the error that Kafka's outages are for us, and the addresses that a person has set."""
        self._unavailable = unavailable
        self._servers = servers
        self._told: KafkaError | None = None
        self._told_at = 0.0

    def take(self, error: KafkaError) -> None:
        """Takes an error, as a callback of a client."""
        last = self._last
        if last is None or _says(error) >= _says(last):
            self._told, self._told_at = error, time.monotonic()

    def clear(self) -> None:
        """Forgets what was told."""
        self._told = None

    @property
    def _last(self) -> KafkaError | None:
        return self._told if time.monotonic() - self._told_at < _TOLD_SECONDS else None

    def is_to_fix(self) -> bool:
        """Returns whether trying again is of no use."""
        last = self._last
        return last is not None and is_to_fix(last)

    def explain(self, error: KafkaError) -> Exception:
        """Returns our error for one of a call, which the clients' last error may explain."""
        last = self._last
        told = last if last is not None and error.code() in _VAGUE else error
        text = _in_our_words(told)
        if _REFUSED_CERTIFICATE.search(text):
            text += "; perhaps the broker wants another KAFKA_SSL_CERTIFICATE_LOCATION"
        if is_to_fix(told):
            return Misconfigured(f"Kafka: {text}")
        learned = _LEARNED.match(text)
        if learned and told.code() in _UNREACHED and learned[1] not in self._servers:
            text += (
                f"; {learned[1]} is what the broker itself gives out as its address (advertised.listeners)"
            )
        return self._unavailable(text)

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


def _says(error: KafkaError) -> int:
    """Returns how much an error says: no broker is there, one has ended the connection, or why."""
    if error.code() == KafkaError._ALL_BROKERS_DOWN:
        return 0
    return 2 if error.code() != KafkaError._TRANSPORT or " failed: " in error.str() else 1


def _in_our_words(error: KafkaError) -> str:
    """Returns what an error says, with the names that a person knows and without what varies."""
    text = _TIMING.sub("", error.str())
    return _PROPERTY.sub(lambda name: f"KAFKA_{name[1] or name[2]}".upper().replace(".", "_"), text)


def is_to_fix(error: KafkaError) -> bool:
    """Returns whether only a person can end an error."""
    said = error.str()
    if _REFUSED_CERTIFICATE.search(said):
        return True
    return error.code() in _TO_FIX and not any(text in said for text in _BROKEN_OFF)
