"""The settings: what each may be, and its default."""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Annotated, NamedTuple, Self
from urllib.parse import quote

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

import environment
from processing.errors import Misconfigured
from sources.policy import BUCKET_SCHEME, QUIET_SECONDS, BucketEnds, BucketPlace, OnLoaded
from watcher.kind import ObserverKind

#: The names of an outside database.
_DATABASE = ("DATABASE_URL", "DB_HOST", "DB_PORT", "DB_NAME", "DB_USER", "DB_PASSWORD")


#: Settings whose value is never shown.
_SECRETS = ("DATABASE_URL", "DB_PASSWORD", "DASHBOARD_TOKEN")


#: What the names of the properties of Kafka's client begin with.
_KAFKA = "KAFKA_"

#: Those that people write by hand, so that a slip in one is noticed; librdkafka knows a hundred more.
_KAFKA_BY_HAND = (
    *("KAFKA_SECURITY_PROTOCOL", "KAFKA_SASL_MECHANISM", "KAFKA_SASL_MECHANISMS"),
    *("KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD", "KAFKA_SSL_CA_LOCATION"),
    *("KAFKA_SSL_CERTIFICATE_LOCATION", "KAFKA_SSL_KEY_LOCATION", "KAFKA_SSL_KEY_PASSWORD"),
)

#: HOST:PORT, HOST or [IPv6]:PORT, where a protocol may stand before it.
_SERVER = re.compile(
    r"(?:(?:PLAINTEXT|SSL|SASL_PLAINTEXT|SASL_SSL)://)?(?:\[[0-9A-Fa-f:]+\]|[^\s:/@\[\]]+)(?::(\d+))?"
)


class LogFormat(StrEnum):
    """The forms of a log line."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """The least level of the log lines that are written."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class Address(NamedTuple):
    """An address to listen at."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def read_address(value: object) -> Address:
    """Reads HOST:PORT, or [HOST]:PORT for IPv6."""
    host, _, port = str(value).rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    is_port = port.isascii() and port.isdigit() and int(port) <= 65_535
    if not bare or not is_port or (":" in bare) == (bare == host):
        raise ValueError("it should be HOST:PORT, such as 127.0.0.1:9464 or [::1]:9464")
    return Address(bare, int(port))


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _absolute(path: Path) -> Path:
    """Resolves symbolic links: not a link is watched, but the folder it leads to."""
    try:
        return path.expanduser().resolve()
    except FileNotFoundError:
        raise ValueError("it should be an absolute path: the current directory is gone") from None
    except (RuntimeError, OSError):  # a loop of links, ~ of nobody
        raise ValueError("it should be the path of a folder") from None


def _place(value: str | Path) -> Path | BucketPlace:
    """Parses s3://bucket/prefix, or the path of a folder."""
    if not isinstance(value, str) or not value.lower().startswith(BUCKET_SCHEME):
        return _absolute(Path(value))
    bucket, _, prefix = value[len(BUCKET_SCHEME) :].partition("/")
    if not bucket:
        raise ValueError("it should be the path of a folder, or s3://bucket/prefix")
    return BucketPlace(bucket, f"{prefix.strip('/')}/" if prefix.strip("/") else "")


def _http(url: str) -> str:
    if not url.startswith(("http://", "https://")):
        raise ValueError("it should begin with http:// or https://")
    return url


def _servers(value: str) -> str:
    found = [_SERVER.fullmatch(server.strip()) for server in value.split(",")]
    if any(one is None or not 0 < int(one[1] or 9092) <= 65_535 for one in found):
        raise ValueError("it should be HOST:PORT,HOST:PORT …")
    return value


def _prefix(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,200}", value):
        raise ValueError("it should be at most 200 letters of ASCII, digits, dots, hyphens and underscores")
    return value


_Folder = Annotated[Path, AfterValidator(_absolute)]
_Place = Annotated[Path | BucketPlace, PlainValidator(_place)]
_Seconds = Annotated[float, Field(gt=0, le=86_400)]


class Settings(BaseModel):
    """The settings of the user; .env.example explains each."""

    model_config = ConfigDict(
        extra="ignore", frozen=True, validate_default=True, arbitrary_types_allowed=True
    )

    watch_folder: _Place = Path("incoming")
    failed_folder: _Place | None = None
    archive_folder: _Place | None = None
    s3_endpoint_url: Annotated[str, AfterValidator(_http)] | None = None
    s3_queue_url: Annotated[str, AfterValidator(_http)] | None = None
    data_folder: _Folder = Path("data")

    database_url: str | None = None
    db_host: str | None = None
    db_port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    db_name: str | None = None
    db_user: str | None = None
    db_password: str | None = None

    #: None: one for each usable CPU, as far as the server has connections for them.
    workers: Annotated[int, Field(ge=1, le=64)] | None = None
    rescan_seconds: _Seconds = 5.0
    settle_seconds: _Seconds = 30.0
    quiet_seconds: _Seconds = QUIET_SECONDS
    observer: ObserverKind = ObserverKind.NATIVE
    on_loaded: OnLoaded = OnLoaded.DELETE
    max_file_bytes: Annotated[int, Field(ge=1)] = 10 * 1024**3
    max_reject_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    max_future_hours: Annotated[float, Field(ge=0, le=876_000)] = 24.0
    #: None: there are no metrics.
    metrics_address: Annotated[Address, BeforeValidator(read_address)] | None = None
    #: None: days are kept for ever.
    retention_days: Annotated[int, Field(ge=1, le=36_500)] | None = None
    kafka_bootstrap_servers: Annotated[str, AfterValidator(_servers)] | None = None
    kafka_topic_prefix: Annotated[str, AfterValidator(_prefix)] = "mobileye"
    kafka_group: Annotated[str, Field(min_length=1)] = "mobileye"
    dashboard_token: Annotated[str, Field(min_length=16)] | None = None
    log_format: LogFormat = LogFormat.TEXT
    log_level: Annotated[LogLevel, BeforeValidator(_lower)] = LogLevel.INFO

    _env_file: Path | None = PrivateAttr(None)
    _kafka: dict[str, str] = PrivateAttr(default_factory=dict)

    @field_validator("database_url")
    @classmethod
    def _check_url(cls, url: str | None) -> str | None:
        if url is None:
            return None
        # Here, because only a URL needs it: importing it takes as long as a third of all settings.
        from psycopg2 import ProgrammingError
        from psycopg2.extensions import parse_dsn

        try:
            parse_dsn(url)
        except ProgrammingError:
            # libpq's own message quotes what may be a part of the password.
            raise ValueError("it should be a PostgreSQL URL or connection string") from None
        return url

    @model_validator(mode="after")
    def _check_combinations(self) -> Self:
        if self.database_url and self._parameters():
            raise ValueError("set either DATABASE_URL or the DB_… variables, not both")
        if self.on_loaded is OnLoaded.ARCHIVE and self.archive_folder is None:
            raise ValueError("ON_LOADED=archive needs ARCHIVE_FOLDER")
        if self.watch_folder in (self.failed_folder, self.archive_folder):
            raise ValueError("FAILED_FOLDER and ARCHIVE_FOLDER can't be the WATCH_FOLDER itself")
        if self.s3_queue_url and self.bucket is None:
            raise ValueError("S3_QUEUE_URL needs a bucket as WATCH_FOLDER: s3://bucket/prefix")
        self._check_places()
        return self

    def _check_places(self) -> None:
        """Objects stay in their bucket, files in their file system."""
        bucket = self.bucket
        for name, place in (("FAILED_FOLDER", self.failed_folder), ("ARCHIVE_FOLDER", self.archive_folder)):
            other = place.bucket if isinstance(place, BucketPlace) else None
            if place is not None and other != (bucket.bucket if bucket else None):
                where = f"in the bucket of WATCH_FOLDER: s3://{bucket.bucket}/…" if bucket else "a folder"
                raise ValueError(f"{name} should be {where}")
            if bucket and isinstance(place, BucketPlace) and bucket.prefix.startswith(place.prefix):
                raise ValueError(f"{name} can't be the WATCH_FOLDER itself, or hold it")

    @property
    def env_file(self) -> Path | None:
        """The .env file that was read."""
        return self._env_file

    @property
    def kafka(self) -> dict[str, str]:
        """The properties of Kafka's client by their own names; raises Misconfigured without an address."""
        if self.kafka_bootstrap_servers is None:
            raise Misconfigured("KAFKA_BOOTSTRAP_SERVERS is not set: it should be HOST:PORT,HOST:PORT …")
        return {"bootstrap.servers": self.kafka_bootstrap_servers, **self._kafka}

    @property
    def bucket(self) -> BucketPlace | None:
        """The part of a bucket where files arrive, if it is no folder."""
        return self.watch_folder if isinstance(self.watch_folder, BucketPlace) else None

    @property
    def folder(self) -> Path:
        """The folder where files arrive; raises Misconfigured if it is a bucket."""
        return _folder(self.watch_folder)

    @property
    def watches(self) -> bool:
        """Returns whether files may arrive, too: not if Kafka alone is set, and there is no folder."""
        is_chosen = "watch_folder" in self.model_fields_set or self.kafka_bootstrap_servers is None
        return is_chosen or self.folder.exists()

    @property
    def failed(self) -> Path:
        return _folder(self.failed_folder) if self.failed_folder else self.folder / "failed"

    @property
    def archive(self) -> Path | None:
        return _folder(self.archive_folder) if self.archive_folder else None

    @property
    def bucket_ends(self) -> BucketEnds:
        """The prefixes in the bucket that objects end in; failed ones by default below where they arrive."""
        failed, archive = self.failed_folder, self.archive_folder
        above = self.bucket.prefix if self.bucket else ""
        return BucketEnds(
            failed.prefix if isinstance(failed, BucketPlace) else f"{above}failed/",
            archive.prefix if isinstance(archive, BucketPlace) else "",
            self.on_loaded,
        )

    @property
    def own_names(self) -> set[str]:
        """The names in the watch folder by which one comes to our own folders."""
        folders = [self.failed, *([self.archive] if self.archive else [])]
        return {os.path.relpath(folder, self.folder).partition(os.sep)[0] for folder in folders}

    @property
    def outside_database(self) -> str | None:
        """The URL or connection string of the user's database; None if the embedded one is used."""
        return self.database_url or (_url(self._parameters()) if self._parameters() else None)

    def _parameters(self) -> dict[str, str]:
        values = {
            "host": self.db_host,
            "port": self.db_port,
            "dbname": self.db_name,
            "user": self.db_user,
            "password": self.db_password,
        }
        return {name: str(value) for name, value in values.items() if value is not None}


def _folder(place: Path | BucketPlace) -> Path:
    if isinstance(place, BucketPlace):
        raise Misconfigured(f"this command works on a folder, and WATCH_FOLDER is a bucket: {place}")
    return place


def _url(parameters: dict[str, str]) -> str:
    """The DB_… variables as one URL, for libpq and for other tools."""
    encoded = {name: quote(value, safe="") for name, value in parameters.items()}
    host, port, name, user, password = (
        encoded.get(key, "") for key in ("host", "port", "dbname", "user", "password")
    )
    if ":" in parameters.get("host", ""):  # IPv6
        host = f"[{parameters['host']}]"
    login = f"{user}:{password}@" if password else f"{user}@" if user else ""
    return f"postgresql://{login}{host}{port and ':'}{port}/{name}"


def load_settings() -> Settings:
    """Returns the settings of the environment and of .env, where the environment comes first.

    Reads the .env of the current directory or, if there is none, the one beside this file; never both.
    Raises Misconfigured, naming each wrong one and what it may be.
    """
    names = [*(name.upper() for name in Settings.model_fields), *_KAFKA_BY_HAND]
    folders = [Path(__file__).parent]
    with suppress(OSError):  # the current directory may be gone
        folders.insert(0, Path.cwd())
    found = environment.read(names, _DATABASE, folders)
    try:
        settings = Settings.model_validate({name.lower(): value for name, value in found.values.items()})
    except ValidationError as error:
        raise Misconfigured("; ".join(_explain(dict(flaw)) for flaw in error.errors())) from None
    settings._env_file = found.env_file
    settings._kafka = dict(_kafka_properties(found.values))
    return settings


def _kafka_properties(values: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yields what KAFKA_<NAME> sets, with the name that the client has for it: KAFKA_SASL_USERNAME."""
    for name, value in values.items():
        is_ours = name.startswith(_KAFKA) and not environment.is_of_another_kafka(name, value)
        if is_ours and name.lower() not in Settings.model_fields:
            yield name.removeprefix(_KAFKA).lower().replace("_", "."), value


def _explain(flaw: dict[str, object]) -> str:
    """Describes one flaw; does not show a value that may hold a password."""
    location, message = flaw["loc"], str(flaw["msg"]).removeprefix("Value error, ")
    name = "_".join(map(str, location)).upper() if isinstance(location, tuple) else ""
    if not name:
        return message
    shown = "" if name in _SECRETS else f" is {flaw['input']!r}"
    return f"{name}{shown}: {message[0].lower()}{message[1:]}"
