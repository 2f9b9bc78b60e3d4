"""The function of a zip in AWS's own runtime and emulator: another user, no other settings."""

import http.client
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import psutil
from msgspec import Struct, json

from jobs import build_lambda
from tests.support import ROOT, free_port, until

HANDLER = "jobs.s3_lambda.handler"

VERSION = f"{sys.version_info.major}.{sys.version_info.minor}"


class Platform(Struct, frozen=True):
    """Folders that every user may read: the unpacked zip, and what AWS has beside it."""

    code: Path
    runtime: Path

    @property
    def emulator(self) -> Path:
        return self.runtime / "samcli" / "local" / "rapid" / f"aws-lambda-rie-{_machine()}"


def _machine() -> build_lambda.Machine:
    is_arm = platform.machine() in ("aarch64", "arm64")
    return build_lambda.Machine.ARM64 if is_arm else build_lambda.Machine.X86_64


@contextmanager
def unpacked() -> Iterator[Platform]:
    """Builds the zip for this machine, and unpacks it into an empty folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        found = Platform(folder / "code", folder / "runtime")
        build_lambda.main(_machine(), VERSION, folder / "function.zip")
        shutil.unpack_archive(folder / "function.zip", found.code)
        _unpack_runtime(folder / "wheels", found)
        yield found


def _unpack_runtime(wheels: Path, platform: Platform) -> None:
    """Unpacks AWS's runtime, and of the two thousand files of its SAM CLI only the emulator."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", f"--dest={wheels}"]
    subprocess.run([*command, "-r", str(ROOT / "requirements" / "lambda_runtime.txt")], check=True)
    for wheel in wheels.iterdir():
        with ZipFile(wheel) as archive:
            has_emulator = wheel.name.startswith("aws_sam_cli")
            emulator = platform.emulator.relative_to(platform.runtime).as_posix()
            archive.extractall(platform.runtime, [emulator] if has_emulator else None)
    platform.emulator.chmod(0o755)


def _python() -> str:
    """An interpreter of the tests' version that other users may run, without packages of its own."""
    ours = str(getattr(sys, "_base_executable", sys.executable))
    candidates = [ours, f"/usr/bin/python{VERSION}", f"/usr/local/bin/python{VERSION}"]
    return next((path for path in candidates if _runs(path)), ours)


def _runs(python: str) -> bool:
    try:
        return subprocess.run([python, "-S", "-c", ""], cwd="/", env={}, **_other_user()).returncode == 0
    except OSError:
        return False


def _other_user() -> dict[str, Any]:
    root = {"user": "nobody", "group": "nogroup", "extra_groups": []}
    return root if os.geteuid() == 0 else {}


class Function:
    """One execution environment of the function; the emulator gives it one event at a time."""

    def __init__(
        self,
        of: Platform,
        folder: Path,
        settings: dict[str, str],
        timeout: int = 30,
        limits: Sequence[str] = (),
    ) -> None:
        """Takes the limits of its memory and its files as options of prlimit."""
        self._limits = ["prlimit", *limits] if limits else []
        self._of = of
        self._folder = folder
        self.settings = settings
        self.timeout = timeout
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        addresses = ["--runtime-api-address", f"127.0.0.1:{free_port()}"]
        addresses += ["--runtime-interface-emulator-address", f"127.0.0.1:{self._port}"]
        command = [str(self._of.emulator), *addresses, *self._limits]
        command += [_python(), "-S", "-m", "awslambdaric", HANDLER]
        given = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(self._of.runtime)}
        given["AWS_LAMBDA_FUNCTION_TIMEOUT"] = str(self.timeout)
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self._of.code,
                env={**given, **self.settings},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **_other_user(),
            )
        until(self._listens, 20, f"the emulator listens; log:\n{self.log()}")

    def stop(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(20)
            self._process = None

    def invoke(self, event: object) -> Any:
        """What the platform gets: the answer of the function, or an object with errorType or errorMessage."""
        path = "/2015-03-31/functions/function/invocations"
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=90)) as link:
            link.request("POST", path, json.encode(event))
            answer = link.getresponse().read()
        try:
            return json.decode(answer)
        except ValueError:
            return {"errorMessage": answer.decode()}

    def runtime(self) -> psutil.Process:
        """The process that runs the handler; the emulator starts it for the first event."""
        assert self._process is not None
        (child,) = psutil.Process(self._process.pid).children()
        return child

    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    @property
    def _log(self) -> Path:
        return self._folder / "log"

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self._port), 1).close()
        except OSError:
            return False
        return True


class Functions:
    """Execution environments of one function."""

    def __init__(self, folder: Path, platform: Platform, settings: dict[str, str]) -> None:
        self._folder = folder
        self._platform = platform
        self._settings = settings
        self._started: list[Function] = []

    def start(self, timeout: int = 30, limits: Sequence[str] = (), **settings: Any) -> Function:
        more = {name: str(value) for name, value in settings.items()}
        place = self._folder / str(len(self._started))
        function = Function(self._platform, place, {**self._settings, **more}, timeout, limits)
        self._started.append(function)
        function.start()
        return function

    def stop(self) -> None:
        for function in self._started:
            function.stop()
