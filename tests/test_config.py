"""Settings: defaults, what each may be, where they are read from, and what is never shown."""

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

import psycopg2
import pytest
from psycopg2.extensions import parse_dsn

from config import LogFormat, Settings, load_settings
from processing.errors import Misconfigured
from sources.policy import OnLoaded
from tests.support import ROOT, Server
from watcher.kind import ObserverKind

NAMES = [name.upper() for name in Settings.model_fields]
SECRET = "hunter2"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and no setting in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def with_env(monkeypatch: pytest.MonkeyPatch, **settings: str) -> Settings:
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def complaint(monkeypatch: pytest.MonkeyPatch, **settings: str) -> str:
    with pytest.raises(Misconfigured) as caught:
        with_env(monkeypatch, **settings)
    return str(caught.value)


def test_without_settings_all_have_their_defaults(home: Path) -> None:
    settings = load_settings()
    assert settings.folder == home / "incoming"
    assert settings.failed == home / "incoming" / "failed"
    assert settings.archive is None
    assert settings.data_folder == home / "data"
    assert settings.outside_database is None
    assert settings.workers == os.cpu_count()
    assert (settings.rescan_seconds, settings.settle_seconds, settings.quiet_seconds) == (5, 30, 1)
    assert settings.observer is ObserverKind.NATIVE
    assert settings.on_loaded is OnLoaded.DELETE
    assert settings.max_file_bytes == 10 * 1024**3
    assert settings.max_reject_ratio == 1
    assert settings.log_format is LogFormat.TEXT


@pytest.mark.parametrize(
    ("name", "value", "attribute", "expected"),
    [
        ("WORKERS", "3", "workers", 3),
        ("RESCAN_SECONDS", "0.5", "rescan_seconds", 0.5),
        ("SETTLE_SECONDS", "86400", "settle_seconds", 86_400),
        ("QUIET_SECONDS", "2.5", "quiet_seconds", 2.5),
        ("OBSERVER", "polling", "observer", ObserverKind.POLLING),
        ("OBSERVER", "off", "observer", ObserverKind.OFF),
        ("MAX_FILE_BYTES", "1", "max_file_bytes", 1),
        ("MAX_REJECT_RATIO", "0", "max_reject_ratio", 0.0),
        ("MAX_REJECT_RATIO", "0.25", "max_reject_ratio", 0.25),
        ("LOG_FORMAT", "json", "log_format", LogFormat.JSON),
        ("DATABASE_URL", "host=h dbname=d", "outside_database", "host=h dbname=d"),
    ],
)
def test_each_setting_can_be_set(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, attribute: str, expected: object
) -> None:
    assert getattr(with_env(monkeypatch, **{name: value}), attribute) == expected


@pytest.mark.parametrize(
    ("name", "value", "may_be"),
    [
        ("WORKERS", "0", "greater than or equal to 1"),
        ("WORKERS", "65", "less than or equal to 64"),
        ("WORKERS", "many", "a valid integer"),
        ("RESCAN_SECONDS", "0", "greater than 0"),
        ("RESCAN_SECONDS", "-1", "greater than 0"),
        ("RESCAN_SECONDS", "nan", "less than or equal to 86400"),
        ("RESCAN_SECONDS", "inf", "less than or equal to 86400"),
        ("SETTLE_SECONDS", "86401", "less than or equal to 86400"),
        ("SETTLE_SECONDS", "soon", "a valid number"),
        ("QUIET_SECONDS", "0", "greater than 0"),
        ("OBSERVER", "inotify", "'native', 'polling' or 'off'"),
        ("ON_LOADED", "keep", "'delete' or 'archive'"),
        ("MAX_FILE_BYTES", "0", "greater than or equal to 1"),
        ("MAX_FILE_BYTES", "1.5", "a valid integer"),
        ("MAX_REJECT_RATIO", "-0.1", "greater than or equal to 0"),
        ("MAX_REJECT_RATIO", "1.1", "less than or equal to 1"),
        ("MAX_REJECT_RATIO", "nan", "less than or equal to 1"),
        ("LOG_FORMAT", "xml", "'text' or 'json'"),
        ("DB_PORT", "0", "greater than or equal to 1"),
        ("DB_PORT", "65536", "less than or equal to 65535"),
        ("DB_PORT", "five", "a valid integer"),
        ("WATCH_FOLDER", "~nobody-of-that-name/x", "the path of a folder"),
    ],
)
def test_a_wrong_value_is_named_with_what_it_may_be(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, may_be: str
) -> None:
    message = complaint(monkeypatch, **{name: value})
    assert message.startswith(f"{name} is '{value}': ") and may_be in message


def test_all_wrong_values_are_reported_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    message = complaint(monkeypatch, WORKERS="0", OBSERVER="x", DB_PORT="y")
    assert all(name in message for name in ("WORKERS", "OBSERVER", "DB_PORT"))


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{SECRET}%zz@host/db",
        f"host='x password={SECRET}",
        f"{SECRET}",
        f"mysql://me:{SECRET}@h",
    ],
)
def test_a_wrong_database_url_is_named_but_not_shown(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    message = complaint(monkeypatch, DATABASE_URL=url)
    assert message == "DATABASE_URL: it should be a PostgreSQL URL or connection string"


def test_no_complaint_shows_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {
        "WORKERS": "0",
        "DB_PORT": "y",
        "DB_PASSWORD": SECRET,
        "DATABASE_URL": f"postgresql://me:{SECRET}@h/d",
    }
    assert SECRET not in complaint(monkeypatch, **wrong)
    monkeypatch.delenv("WORKERS")
    monkeypatch.delenv("DB_PORT")
    assert SECRET not in complaint(monkeypatch)


@pytest.mark.parametrize(
    ("name", "value"), [("DB_HOST", "h"), ("DB_PORT", "1"), ("DB_NAME", "n"), ("DB_USER", "u")]
)
def test_a_url_and_its_parts_exclude_each_other(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    message = complaint(monkeypatch, DATABASE_URL="postgresql://h/d", **{name: value})
    assert message == "set either DATABASE_URL or the DB_… variables, not both"


def test_an_archive_needs_a_folder(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    assert complaint(monkeypatch, ON_LOADED="archive") == "ON_LOADED=archive needs ARCHIVE_FOLDER"
    assert with_env(monkeypatch, ARCHIVE_FOLDER="kept").archive == home / "kept"


@pytest.mark.parametrize("name", ["FAILED_FOLDER", "ARCHIVE_FOLDER"])
def test_files_are_not_set_aside_into_the_watch_folder(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert "can't be the WATCH_FOLDER" in complaint(monkeypatch, WATCH_FOLDER="in", **{name: "./in/../in"})


def test_a_loop_of_links_is_reported(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    (home / "loop").symlink_to("loop")
    assert "WATCH_FOLDER" in complaint(monkeypatch, WATCH_FOLDER="loop")


def test_a_linked_watch_folder_is_resolved(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    (home / "real").mkdir()
    (home / "link").symlink_to("real")
    assert with_env(monkeypatch, WATCH_FOLDER="link").folder == home / "real"


def test_a_dotenv_file_is_read(home: Path) -> None:
    (home / ".env").write_text('WORKERS=7\nDB_PASSWORD="a b#c"\nUNKNOWN=ignored\n')
    settings = load_settings()
    assert (settings.workers, settings.db_password) == (7, "a b#c")


def test_the_environment_wins_over_a_dotenv_file(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    (home / ".env").write_text("WORKERS=7\nSETTLE_SECONDS=8\n")
    settings = with_env(monkeypatch, WORKERS="9")
    assert (settings.workers, settings.settle_seconds) == (9, 8)


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_value_counts_as_unset(monkeypatch: pytest.MonkeyPatch, home: Path, name: str) -> None:
    default = load_settings()
    assert with_env(monkeypatch, **{name: ""}) == default
    monkeypatch.delenv(name)
    (home / ".env").write_text(f"{name}=\n")
    assert load_settings() == default


@pytest.mark.parametrize("content", [b"WORKERS=\xff\xfe\n", b"\xff\xfeW\0O\0"])
def test_a_dotenv_file_that_is_not_text_is_reported(home: Path, content: bytes) -> None:
    (home / ".env").write_bytes(content)
    with pytest.raises(Misconfigured, match=r"can't read \.env: it is not UTF-8"):
        load_settings()


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ({"DB_HOST": "db.example"}, {"host": "db.example"}),
        ({"DB_HOST": "::1", "DB_PORT": "5433"}, {"host": "::1", "port": "5433"}),
        ({"DB_HOST": "/var/run/postgresql", "DB_NAME": "d"}, {"host": "/var/run/postgresql", "dbname": "d"}),
        ({"DB_USER": "me@corp", "DB_NAME": "a/b c"}, {"user": "me@corp", "dbname": "a/b c"}),
        ({"DB_PORT": "5433"}, {"port": "5433"}),
        ({"DB_PASSWORD": "x"}, {"password": "x"}),
    ],
)
def test_the_parts_become_a_url_that_means_them(
    monkeypatch: pytest.MonkeyPatch, parts: dict[str, str], expected: dict[str, str]
) -> None:
    url = with_env(monkeypatch, **parts).outside_database
    assert url is not None and url.startswith("postgresql://")
    assert parse_dsn(url) == expected


@pytest.mark.parametrize(
    "password", ["p@ss/w:rd?#[]", 'it\'s "quoted" \\ %41 &=+', "пароль 密码", " ", "$HOME"]
)
def test_a_password_of_special_characters_works(
    server: Server, monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    quoted = password.replace("'", "''")
    server.execute(f"SET standard_conforming_strings = on; CREATE ROLE special LOGIN PASSWORD '{quoted}'")
    try:
        parts = {
            "DB_HOST": "127.0.0.1",
            "DB_PORT": str(server.port),
            "DB_NAME": "postgres",
            "DB_USER": "special",
        }
        url = with_env(monkeypatch, DB_PASSWORD=password, **parts).outside_database
        assert url is not None
        psycopg2.connect(url).close()
        assert unquote(urlsplit(url).password or "") == password
    finally:
        server.execute("DROP ROLE special")


def test_the_example_file_names_every_setting_and_no_other() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    documented = {
        line.removeprefix("# ").partition("=")[0] for line in lines if line.startswith("# ") and "=" in line
    }
    assert {name for name in documented if name.isupper() and " " not in name} == set(NAMES)
