"""The errors of Kafka's clients: what a person has to fix, and what passes."""

import pytest
from confluent_kafka import KafkaError

from processing.errors import Misconfigured, SourceUnavailable
from sources.kafka_client import Cluster

CLUSTER = Cluster({"bootstrap.servers": "broker:9092"})

_HANDSHAKE = "SASL SCRAM-SHA-512 mechanism handshake failed"


@pytest.mark.parametrize(
    ("code", "text", "expected"),
    [
        (KafkaError._AUTHENTICATION, f"{_HANDSHAKE}: Broker: Unsupported SASL mechanism", Misconfigured),
        (KafkaError._AUTHENTICATION, f"{_HANDSHAKE}: Local: Broker transport failure", SourceUnavailable),
        (KafkaError._SSL, "SSL handshake failed: certificate verify failed", Misconfigured),
        (KafkaError._SSL, "SSL handshake failed: SSL transport error: Broken pipe", SourceUnavailable),
        (KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down", SourceUnavailable),
    ],
)
def test_a_connection_that_breaks_while_it_is_checked_is_an_outage(
    code: int, text: str, expected: type[Exception]
) -> None:
    explained = CLUSTER.complaints(SourceUnavailable).explain(KafkaError(code, text))
    assert type(explained) is expected and text in str(explained)


def test_an_answer_that_comes_too_late_is_explained_by_what_the_client_has_told_of() -> None:
    complaints = CLUSTER.complaints(SourceUnavailable)
    with pytest.raises(SourceUnavailable, match="Local: Timed out"), complaints.translated():
        raise TimeoutError
    told = (
        "other:9092/1: Failed to resolve 'other:9092': Name or service not known (after 2ms in state CONNECT)"
    )
    complaints.take(KafkaError(KafkaError._RESOLVE, told))
    complaints.take(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    with pytest.raises(SourceUnavailable) as found, complaints.translated():
        raise TimeoutError
    assert str(found.value) == (
        "other:9092/1: Failed to resolve 'other:9092': Name or service not known; other:9092 is what the "
        "broker itself gives out as its address (advertised.listeners)"
    )
