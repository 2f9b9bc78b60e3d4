"""The settings, and the only reader of the environment."""

import os
from pathlib import Path
from typing import Annotated, Self

from psycopg2 import ProgrammingError
from psycopg2.extensions import make_dsn, parse_dsn
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from commands.logs import LogFormat
from processing.errors import Misconfigured
from processing.settle import OnLoaded
from watcher.observer import ObserverKind

_SECONDS = Annotated[float, Field(gt=0, le=86_400)]


class Settings(BaseSettings):
    """What a user may set, in the environment or in .env; .env.example explains each."""

    model_config = SettingsConfigDict(env_file=".env", extra="ignore", frozen=True, env_ignore_empty=True)

    watch_folder: Path = Path("incoming")
    failed_folder: Path | None = None
    archive_folder: Path | None = None
    data_folder: Path = Path("data")

    database_url: str | None = None
    db_host: str | None = None
    db_port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    db_name: str | None = None
    db_user: str | None = None
    db_password: str | None = None

    workers: Annotated[int, Field(ge=1, le=64)] = min(os.cpu_count() or 1, 64)
    rescan_seconds: _SECONDS = 5.0
    settle_seconds: _SECONDS = 30.0
    observer: ObserverKind = ObserverKind.NATIVE
    on_loaded: OnLoaded = OnLoaded.DELETE
    max_file_bytes: Annotated[int, Field(ge=1)] = 10 * 1024**3
    log_format: LogFormat = LogFormat.TEXT

    @field_validator("database_url")
    @classmethod
    def _check_url(cls, url: str | None) -> str | None:
        try:
            parse_dsn(url or "")
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
        return self

    @property
    def folder(self) -> Path:
        """The watch folder, with symbolic links resolved: a link is not watched, what it leads to is."""
        return self.watch_folder.expanduser().resolve()

    @property
    def failed(self) -> Path:
        return (self.failed_folder or self.folder / "failed").expanduser().resolve()

    @property
    def archive(self) -> Path | None:
        return self.archive_folder.expanduser().resolve() if self.archive_folder else None

    @property
    def outside_database(self) -> str | None:
        """The connection string of a database that is not ours to start; none: the embedded one."""
        if self.database_url:
            return self.database_url
        parameters = self._parameters()
        return make_dsn("", **parameters) if parameters else None

    def _parameters(self) -> dict[str, str]:
        values = {
            "host": self.db_host,
            "port": self.db_port,
            "dbname": self.db_name,
            "user": self.db_user,
            "password": self.db_password,
        }
        return {name: str(value) for name, value in values.items() if value is not None}


def load_settings() -> Settings:
    """The settings; raises Misconfigured, naming each wrong one and what it may be."""
    try:
        return Settings()
    except ValidationError as error:
        raise Misconfigured("; ".join(_explain(dict(flaw)) for flaw in error.errors())) from None


def _explain(flaw: dict[str, object]) -> str:
    """One flaw; the value is not shown where it may hold a password."""
    location, message = flaw["loc"], str(flaw["msg"]).removeprefix("Value error, ")
    name = "_".join(map(str, location)).upper() if isinstance(location, tuple) else ""
    if not name:
        return message
    shown = "" if name in ("DATABASE_URL", "DB_PASSWORD") else f" is {flaw['input']!r}"
    return f"{name}{shown}: {message[0].lower()}{message[1:]}"
