"""Loads a folder with one alternative and prints the seconds that it takes, without imports.

python -m benchmarks.alternatives NAME FOLDER URL
"""

import sys
import time
from importlib import import_module
from pathlib import Path


def main(name: str, folder: str, url: str) -> None:
    module = import_module(f"benchmarks.alternatives.{name}")
    started = time.perf_counter()
    module.load(Path(folder), url)
    sys.stdout.write(f"\n{time.perf_counter() - started}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
