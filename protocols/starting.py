"""Python's collector of garbage while a program starts.

What a program imports stays to its end. Looked through again and again while it grows, and once more when the program ends, it costs a
fifth of a start.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Imports for the length of a `with` block: nothing is collected meanwhile, and what there is at its end stays."""
    gc.disable()
    try:
        yield
    finally:
        stays()
        gc.enable()


def stays() -> None:
    """All that there is now is left alone by the collector from now on. For programs only: in a test it would hide what was not closed."""
    gc.freeze()
