"""Settings: defaults, what each may be, where they are read from, and what is never shown."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

import psycopg2
import pytest
from psycopg2.extensions import parse_dsn

import config
from config import LogFormat, Settings, load_settings
from processing.errors import Misconfigured
from sources.policy import BucketEnds, BucketPlace, OnLoaded
from tests.support import ROOT, Server
from watcher.kind import ObserverKind

DATABASE = {"DATABASE_URL", "DB_HOST", "DB_PORT", "DB_NAME", "DB_USER", "DB_PASSWORD"}
NAMES = [name.upper() for name in Settings.model_fields]
SECRET = "hunter2"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, no .env beside the program, and no setting in the environment."""
    home, program = tmp_path / "home", tmp_path / "program"
    home.mkdir()
    program.mkdir()
    monkeypatch.chdir(home)
    monkeypatch.setattr(config, "__file__", str(program / "config.py"))
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    return home


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
    assert settings.workers is None
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
        ("METRICS_ADDRESS", "127.0.0.1:9464", "metrics_address", ("127.0.0.1", 9464)),
        ("METRICS_ADDRESS", "[::1]:0", "metrics_address", ("::1", 0)),
        ("METRICS_ADDRESS", "localhost:65535", "metrics_address", ("localhost", 65535)),
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
        ("METRICS_ADDRESS", "9464", "HOST:PORT, such as 127.0.0.1:9464 or [::1]:9464"),
        ("METRICS_ADDRESS", ":9464", "HOST:PORT"),
        ("METRICS_ADDRESS", "127.0.0.1:65536", "HOST:PORT"),
        ("METRICS_ADDRESS", "127.0.0.1:http", "HOST:PORT"),
        ("METRICS_ADDRESS", "::1:9464", "HOST:PORT"),
        ("METRICS_ADDRESS", "[::1]", "HOST:PORT"),
        ("METRICS_ADDRESS", "[127.0.0.1]:9464", "HOST:PORT"),
        ("DB_PORT", "0", "greater than or equal to 1"),
        ("DB_PORT", "65536", "less than or equal to 65535"),
        ("DB_PORT", "five", "a valid integer"),
        ("WATCH_FOLDER", "~nobody-of-that-name/x", "the path of a folder"),
        ("WATCH_FOLDER", "s3://", "the path of a folder, or s3://bucket/prefix"),
        ("S3_ENDPOINT_URL", "localhost:9000", "begin with http:// or https://"),
        ("KAFKA_BOOTSTRAP_SERVERS", "http://broker:9092", "HOST:PORT,HOST:PORT …"),
        ("KAFKA_BOOTSTRAP_SERVERS", "broker:9092;other:9092", "HOST:PORT,HOST:PORT …"),
        ("KAFKA_BOOTSTRAP_SERVERS", "broker:9092,other:kafka", "HOST:PORT,HOST:PORT …"),
        ("KAFKA_BOOTSTRAP_SERVERS", "broker:90920", "HOST:PORT,HOST:PORT …"),
        ("KAFKA_TOPIC_PREFIX", "our fleet", "letters of ASCII, digits, dots, hyphens and underscores"),
        ("KAFKA_TOPIC_PREFIX", "x" * 201, "at most 200 letters"),
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


@pytest.mark.parametrize("name", sorted({*NAMES} - DATABASE))
def test_an_empty_value_counts_as_unset(monkeypatch: pytest.MonkeyPatch, home: Path, name: str) -> None:
    default = load_settings().model_dump()
    assert with_env(monkeypatch, **{name: ""}).model_dump() == default
    monkeypatch.delenv(name)
    (home / ".env").write_text(f"{name}=\n")
    assert load_settings().model_dump() == default


@pytest.mark.parametrize("name", sorted(DATABASE))
def test_an_empty_value_for_the_database_is_refused(
    monkeypatch: pytest.MonkeyPatch, home: Path, name: str
) -> None:
    told = complaint(monkeypatch, **{name: ""})
    assert told == f"{name} is empty in the environment: give it a value, or remove it"
    monkeypatch.delenv(name)
    for line in (f"{name}=", f"{name}=''", f"{name}= # not yet", name, f'{name}="${{NO_SUCH_SECRET}}"'):
        (home / ".env").write_text(f"{line}\n")
        assert complaint(monkeypatch).startswith(f"{name} is empty in {home}/.env: "), line


def test_an_empty_database_is_refused_whatever_dotenv_says(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    (home / ".env").write_text("DATABASE_URL=postgresql://h/d\n")
    assert "DATABASE_URL is empty in the environment" in complaint(monkeypatch, DATABASE_URL=" ")
    assert with_env(monkeypatch, DATABASE_URL="postgresql://i/d").database_url == "postgresql://i/d"


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("WATCH_FOLDR", "WATCH_FOLDER"),
        ("WATCH_FODLER", "WATCH_FOLDER"),
        ("WACTH_FOLDERS", "WATCH_FOLDER"),
        ("WATCHFOLDER", "WATCH_FOLDER"),
        ("DATAFOLDER", "DATA_FOLDER"),
        ("DATABASE_ULR", "DATABASE_URL"),
        ("DATABSE_URL", "DATABASE_URL"),
        ("DB_HSOT", "DB_HOST"),
        ("DB_PASSWROD", "DB_PASSWORD"),
        ("RESCAN_SECOND", "RESCAN_SECONDS"),
        ("MAX_FILES_BYTES", "MAX_FILE_BYTES"),
        ("WORKER", "WORKERS"),
        ("Watch_Foldr", "WATCH_FOLDER"),
        ("KAFKA_BOOTSTRAP_SERVER", "KAFKA_BOOTSTRAP_SERVERS"),
        ("KAFKA_SASL_PASWORD", "KAFKA_SASL_PASSWORD"),
    ],
)
def test_a_name_that_is_nearly_ours_is_refused(
    monkeypatch: pytest.MonkeyPatch, home: Path, name: str, meant: str
) -> None:
    told = complaint(monkeypatch, **{name: "x"})
    assert told == f"{name.upper()} in the environment is no setting: is {meant} meant?"
    monkeypatch.delenv(name)
    (home / ".env").write_text(f"{name}=x\n")
    assert complaint(monkeypatch) == f"{name.upper()} in {home}/.env is no setting: is {meant} meant?"


def test_a_name_that_is_nearly_ours_is_another_program_s_if_ours_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert with_env(monkeypatch, WORKER="x", WORKERS="3").workers == 3


@pytest.mark.parametrize("name", ["DATABASE_URI", "POSTGRES_URL", "DB_URL", "DB_USERNAME", "DATABASE_HOST"])
def test_a_database_under_another_tool_s_name_is_refused_if_there_is_none_under_ours(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    told = complaint(monkeypatch, **{name: "x"})
    assert told == f"{name} in the environment is no setting: use DATABASE_URL or the DB_… variables"
    assert with_env(monkeypatch, DB_HOST="h").db_host == "h"


FOREIGN = """
CI GITHUB_TOKEN GITHUB_WORKFLOW RUNNER_WORKSPACE CI_PROJECT_NAME BUILD_NUMBER DOCKER_HOST HOSTNAME
HOME INVOCATION_ID JOURNAL_STREAM NOTIFY_SOCKET LISTEN_FDS STATE_DIRECTORY LOGS_DIRECTORY
WATCHDOG_USEC KUBERNETES_SERVICE_HOST KUBERNETES_PORT DB_SERVICE_HOST DB_SERVICE_PORT
DB_PORT_5432_TCP_ADDR DB_HOST_PORT DB_PORT_5432_TCP_PORT WORKERS_PORT WORKERS_SERVICE_HOST
DATABASE_SERVICE_HOST DATABASE_PORT POSTGRES_PASSWORD POSTGRES_USER POSTGRES_DB PGHOST PGPASSWORD
PGDATABASE DATABASE_SSL DATABASE_POOL ES_PASSWORD DB_TYPE DB_POOL DB_PATH DB_PASSWORD_FILE PDB_NAME
RDB_HOST LOGLEVEL LOG_FILE LOG_DIR DATA_DIR WEB_CONCURRENCY MAX_WORKERS CELERY_WORKERS
UVICORN_WORKERS OBSERVERS_URL UNKNOWN TZ LANG LC_ALL PATH PWD
"""


@pytest.mark.parametrize("place", ["environment", "file"])
def test_names_of_other_programs_are_none_of_our_business(
    monkeypatch: pytest.MonkeyPatch, home: Path, place: str
) -> None:
    if place == "file":
        (home / ".env").write_text("".join(f"{name}=x\n" for name in FOREIGN.split()))
        load_settings()
    else:
        with_env(monkeypatch, **dict.fromkeys(FOREIGN.split(), "x"))


def test_a_service_named_db_in_the_cluster_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert with_env(monkeypatch, DB_PORT="tcp://10.0.0.7:5432").outside_database is None
    assert with_env(monkeypatch, DATABASE_URL="postgresql://h/d").outside_database == "postgresql://h/d"


def test_the_dotenv_file_of_the_current_directory_is_read_or_the_one_beside_the_program(home: Path) -> None:
    assert load_settings().env_file is None
    beside = home.parent / "program" / ".env"
    beside.write_text("WORKERS=7\nSETTLE_SECONDS=8\n")
    assert (load_settings().workers, load_settings().env_file) == (7, beside)
    (home / ".env").write_text("SETTLE_SECONDS=9\n")
    settings = load_settings()
    assert (settings.settle_seconds, settings.env_file) == (9, home / ".env")
    assert settings.workers is None, "it was a mixture of both"


def test_without_a_current_directory_the_dotenv_file_beside_the_program_is_read(home: Path) -> None:
    folder = home.parent
    (folder / "program" / ".env").write_text(f"WATCH_FOLDER={folder}/in\nDATA_FOLDER={folder}/data\n")
    home.rmdir()
    assert load_settings().folder == folder / "in"
    (folder / "program" / ".env").write_text(f"WATCH_FOLDER={folder}/in\n")
    with pytest.raises(Misconfigured, match="DATA_FOLDER"):
        load_settings()


@pytest.mark.parametrize(
    ("line", "password"),
    [
        ("DB_PASSWORD='a${HOST}b'", "a${HOST}b"),
        ("export 'DB_PASSWORD' = 'a${HOST}b' # kept", "a${HOST}b"),
        ("\n# one line further\nDB_PASSWORD='${HOST}'", "${HOST}"),
        ('DB_PASSWORD="a${HOST}b"', "adb.exampleb"),
        ("DB_PASSWORD=a${HOST}b", "adb.exampleb"),
        ("DB_PASSWORD=a${NO_SUCH_NAME:-c}b", "acb"),
        ("DB_PASSWORD=a${HOST:-c}b", "adb.exampleb"),
        ("DB_PASSWORD=a$HOSTb", "a$HOSTb"),
        ("HOST=of.file\nDB_PASSWORD=${HOST}", "of.file"),
        ("HOST='${OTHER}'\nDB_PASSWORD=${HOST}", "${OTHER}"),
    ],
)
def test_names_in_braces_are_replaced_except_in_single_quotes(
    monkeypatch: pytest.MonkeyPatch, home: Path, line: str, password: str
) -> None:
    (home / ".env").write_text(f"{line}\n")
    assert with_env(monkeypatch, HOST="db.example").db_password == password


@pytest.mark.parametrize("line", ['DATABASE_URL="postgresql://me:hunter2@h/d', "DB_PASSWORD='hunter2", "'x"])
def test_a_line_of_dotenv_that_is_wrong_is_named_and_not_shown(home: Path, line: str) -> None:
    (home / ".env").write_text(f"WORKERS=2\n\n{line}\nOBSERVER=off\n")
    with pytest.raises(Misconfigured, match=rf"can't read line 3 of {home}/\.env") as caught:
        load_settings()
    assert SECRET not in str(caught.value)


def test_a_dotenv_that_is_a_folder_is_told(home: Path) -> None:
    (home / ".env").mkdir()  # as a container's mount makes it, where the file is missing
    with pytest.raises(Misconfigured, match=r"can't read .*/\.env: Is a directory"):
        load_settings()


@pytest.mark.parametrize("content", [b"WORKERS=\xff\xfe\n", b"\xff\xfeW\0O\0"])
def test_a_dotenv_file_that_is_not_text_is_reported(home: Path, content: bytes) -> None:
    (home / ".env").write_bytes(content)
    with pytest.raises(Misconfigured, match=r"can't read .*/\.env: it is not UTF-8"):
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


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("s3://bucket", BucketPlace("bucket", "")),
        ("s3://bucket/", BucketPlace("bucket", "")),
        ("s3://bucket/in", BucketPlace("bucket", "in/")),
        ("S3://bucket/in/of/it/", BucketPlace("bucket", "in/of/it/")),
    ],
)
def test_the_watch_folder_may_be_a_part_of_a_bucket(
    monkeypatch: pytest.MonkeyPatch, address: str, place: BucketPlace
) -> None:
    settings = with_env(monkeypatch, WATCH_FOLDER=address)
    assert settings.bucket == place
    assert settings.bucket_ends == BucketEnds(f"{place.prefix}failed/", "", OnLoaded.DELETE)
    with pytest.raises(Misconfigured, match="works on a folder, and WATCH_FOLDER is a bucket"):
        _ = settings.folder


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"FAILED_FOLDER": "/somewhere"}, "FAILED_FOLDER should be in the bucket of WATCH_FOLDER: s3://b/"),
        ({"FAILED_FOLDER": "s3://other/failed"}, "FAILED_FOLDER should be in the bucket of WATCH_FOLDER"),
        ({"ARCHIVE_FOLDER": "s3://b"}, "ARCHIVE_FOLDER can't be the WATCH_FOLDER itself, or hold it"),
        ({"FAILED_FOLDER": "s3://b/in/"}, "can't be the WATCH_FOLDER itself"),
        ({"WATCH_FOLDER": "folder", "FAILED_FOLDER": "s3://b/f"}, "FAILED_FOLDER should be a folder"),
    ],
)
def test_objects_stay_in_their_bucket(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], reason: str
) -> None:
    assert reason in complaint(monkeypatch, **{"WATCH_FOLDER": "s3://b/in", **settings})
