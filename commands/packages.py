"""Packages that one command alone needs."""

from collections.abc import Iterator
from contextlib import contextmanager

from processing.errors import Misconfigured


@contextmanager
def packages_of(name: str) -> Iterator[None]:
    """Says where to find packages that an import lacks."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = f"the package {error.name} is missing: pip install -r requirements/{name}.txt"
        raise Misconfigured(missing) from None
