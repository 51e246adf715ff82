"""The real orders shipped with Longshore, as package data: `scms.csv.gz`, described in DATA_CARD.md beside it."""

from __future__ import annotations

from importlib import resources
from typing import BinaryIO, Final, cast

SCMS: Final = "scms.csv.gz"
CARD: Final = "DATA_CARD.md"


def open_scms() -> BinaryIO:
    """The shipped SCMS order lines, open for reading as gzip bytes; `models.importers.scms.read_events` takes it. The caller closes it."""
    return cast(BinaryIO, resources.files(__name__).joinpath(SCMS).open("rb"))


def card_text() -> str:
    """The data card of the samples."""
    return resources.files(__name__).joinpath(CARD).read_text(encoding="utf-8")
