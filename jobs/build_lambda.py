"""Builds the zip for AWS Lambda, on any machine: python -m jobs.build_lambda --machine arm64."""

import compileall
import shutil
import subprocess
import sys
import tempfile
from enum import StrEnum
from modulefinder import ModuleFinder
from pathlib import Path
from py_compile import PycInvalidationMode
from typing import Annotated
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import typer

_ROOT = Path(__file__).parent.parent
_HANDLER = _ROOT / "jobs" / "s3_lambda.py"
_REQUIREMENTS = _ROOT / "requirements" / "lambda.txt"

#: What our modules read beside each other.
_DATA = ("schema.sql",)

#: The systems whose wheels run on Amazon Linux 2023, which Python 3.12 and later have there.
_PLATFORMS = ("manylinux2014", "manylinux_2_28")

#: The models of botocore that are kept; those of four hundred other services are two thirds of all.
_SERVICES = ("s3",)

#: Each file of the zip has this time: what was built twice is equal.
_TIME = (2000, 1, 1, 0, 0, 0)


class Machine(StrEnum):
    """The processors of AWS Lambda, by its own names."""

    X86_64 = "x86_64"
    ARM64 = "arm64"


def main(
    machine: Annotated[Machine, typer.Option(help="The function's architecture.")] = Machine.X86_64,
    python: Annotated[str, typer.Option(help="The function's version of Python.")] = "3.12",
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("mobileye-lambda.zip"),
) -> None:
    """Builds the zip for AWS Lambda.

    Built by the function's version of Python, it has compiled modules, and starts faster.
    """
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder)
        _install(package, machine, python)
        _copy_ours(package)
        if f"{sys.version_info.major}.{sys.version_info.minor}" == python:
            compileall.compile_dir(
                package, quiet=1, stripdir=folder, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH
            )
        unpacked = sum(path.stat().st_size for path in package.rglob("*"))
        _zip(package, out)
    size = f"{out.stat().st_size / 1e6:.1f} MB, unpacked {unpacked / 1e6:.1f} MB"
    typer.echo(f"{out}: {size}, for Python {python} on {machine}")


def _install(package: Path, machine: Machine, python: str) -> None:
    """Puts the packages there, as wheels for the function's system."""
    of_linux = "aarch64" if machine is Machine.ARM64 else "x86_64"
    options = ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}", "--no-compile"]
    options += [f"--platform={platform}_{of_linux}" for platform in _PLATFORMS]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    run = subprocess.run([*command, *options, f"--target={package}", "--requirement", str(_REQUIREMENTS)])
    if run.returncode:
        raise typer.Exit(run.returncode)
    shutil.rmtree(package / "bin", ignore_errors=True)
    for service in (package / "botocore" / "data").iterdir():
        if service.is_dir() and service.name not in _SERVICES:
            shutil.rmtree(service)


def _copy_ours(package: Path) -> None:
    """Copies the modules that the function imports, at once or later, and no others."""
    finder = ModuleFinder(path=[str(_ROOT)])
    finder.run_script(str(_HANDLER))
    files = [getattr(module, "__file__", None) for module in finder.modules.values()]
    ours = [Path(file) for file in files if file]
    for path in [*ours, *(_ROOT / name for name in _DATA)]:
        target = package / path.relative_to(_ROOT)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)


def _zip(package: Path, out: Path) -> None:
    with ZipFile(out, "w", ZIP_DEFLATED) as archive:
        for path in sorted(path for path in package.rglob("*") if path.is_file()):
            entry = ZipInfo(str(path.relative_to(package)), _TIME)
            entry.compress_type = ZIP_DEFLATED
            entry.external_attr = 0o755 << 16  # readable for the user of the function
            archive.writestr(entry, path.read_bytes())


if __name__ == "__main__":
    typer.run(main)
