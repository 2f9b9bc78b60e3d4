"""A broker that asks its users for a password, over TLS, and lets each do only what it has a right to."""

from pathlib import Path
from typing import Any

from confluent_kafka.admin._acl import AclBinding, AclBindingFilter, AclOperation, AclPermissionType
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType
from confluent_kafka.admin._scram import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

from tests.certificates import make_ca, make_certificate, make_client_certificate
from tests.kafka import Broker
from tests.support import free_port

#: After so long a client has to show its password again.
_SESSION_MILLISECONDS = 3_000

#: What the listener of that name gives out as its address.
LOST = "kafka.invalid:9092"

_LOGIN = "org.apache.kafka.common.security.scram.ScramLoginModule required;"


class SecuredBroker(Broker):
    """The tests come by the listener without a password, and may do all; others by the secured one.

    A third listener asks for a client's certificate instead, and a fourth gives out an address that does not
    exist.
    """

    def __init__(self, folder: Path, jars: Path) -> None:
        super().__init__(folder, jars)
        self.secured_port, self.mutual_port, self.lost_port = free_port(), free_port(), free_port()
        self.ca = folder / "right.crt"
        self.wrong_ca = folder / "wrong.crt"

    def settings(self) -> dict[str, object]:
        usual, secured, mutual = super().settings(), "listener.name.secured", "listener.name.mutual"
        map_ = usual["listener.security.protocol.map"]
        own = f"SECURED://127.0.0.1:{self.secured_port},MUTUAL://127.0.0.1:{self.mutual_port}"
        return {
            **usual,
            "listeners": f"{own},LOST://127.0.0.1:{self.lost_port},{usual['listeners']}",
            "advertised.listeners": f"{own},LOST://{LOST},PLAINTEXT://{self.servers}",
            "listener.security.protocol.map": f"SECURED:SASL_SSL,MUTUAL:SSL,LOST:PLAINTEXT,{map_}",
            f"{secured}.sasl.enabled.mechanisms": "SCRAM-SHA-512",
            f"{secured}.scram-sha-512.sasl.jaas.config": _LOGIN,
            f"{secured}.scram-sha-512.connections.max.reauth.ms": _SESSION_MILLISECONDS,
            **{f"{name}.ssl.keystore.type": "PEM" for name in (secured, mutual)},
            **{f"{name}.ssl.keystore.location": self.folder / "server.pem" for name in (secured, mutual)},
            f"{mutual}.ssl.client.auth": "required",
            f"{mutual}.ssl.truststore.type": "PEM",
            f"{mutual}.ssl.truststore.location": self.ca,
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }

    def create(self) -> None:
        make_certificate(self.folder, make_ca(self.folder, "right"))
        make_ca(self.folder, "wrong")
        parts = [(self.folder / f"server.{end}").read_text() for end in ("key", "crt")]
        (self.folder / "server.pem").write_text("".join(parts))
        super().create()

    def client(self, user: str, password: str) -> dict[str, object]:
        """The settings of one who comes by the secured listener."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{self.secured_port}",
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_MECHANISMS": "SCRAM-SHA-512",
            "KAFKA_SASL_USERNAME": user,
            "KAFKA_SASL_PASSWORD": password,
            "KAFKA_SSL_CA_LOCATION": self.ca,
        }

    def certified(self, name: str, password: str, authority: str = "right") -> dict[str, object]:
        """The settings of one who shows a certificate of that authority; its key has the password."""
        make_client_certificate(self.folder, self.folder / f"{authority}.crt", name, password)
        return {
            "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{self.mutual_port}",
            "KAFKA_SECURITY_PROTOCOL": "SSL",
            "KAFKA_SSL_CA_LOCATION": self.ca,
            "KAFKA_SSL_CERTIFICATE_LOCATION": self.folder / f"{name}.crt",
            "KAFKA_SSL_KEY_LOCATION": self.folder / f"{name}.key",
            "KAFKA_SSL_KEY_PASSWORD": password,
        }

    def set_password(self, user: str, password: str) -> None:
        """Adds a user, or gives it another password."""
        how = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        wanted = UserScramCredentialUpsertion(user, how, password.encode())
        for done in self.admin.alter_user_scram_credentials([wanted]).values():
            done.result(20)

    def allow(self, user: str, kind: ResourceType, name: str, *operations: AclOperation) -> None:
        """Gives a user rights to all that begins with a name."""
        rights = [
            AclBinding(
                kind,
                name,
                ResourcePatternType.PREFIXED,
                f"User:{user}",
                "*",
                operation,
                AclPermissionType.ALLOW,
            )
            for operation in operations
        ]
        for done in self.admin.create_acls(rights).values():
            done.result(20)

    def forbid(self, user: str, kind: ResourceType) -> None:
        """Takes all rights to something away from a user."""
        anything: Any = None  # its types do not say that it may be so
        those = AclBindingFilter(
            kind,
            anything,
            ResourcePatternType.ANY,
            f"User:{user}",
            anything,
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        for done in self.admin.delete_acls([those]).values():
            done.result(20)
