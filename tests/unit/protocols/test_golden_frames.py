"""Frames of released versions open for ever, and the encoder's choices do not drift unnoticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from protocols.codec import FrameHeader, Kind, decode_body, open_envelope, plain_body
from protocols.errors import NotVerified
from protocols.fact import chain
from protocols.trust import verify
from tests.golden.frames import make

FOLDER: Final = Path(make.__file__).parent
NAMES: Final = sorted(path.stem for path in FOLDER.glob("*.bin"))


def about(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return found


def rows_of(name: str) -> list[bytes]:
    return [bytes.fromhex(row["hex"]) for row in about(name)["rows"]]


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_frame_opens_to_its_rows(name: str) -> None:
    message = open_envelope((FOLDER / f"{name}.bin").read_bytes())
    header = FrameHeader.parse(message.header)
    assert message.kind is Kind.FRAME
    assert [item.hex() if isinstance(item, bytes) else item for item in header.to_list()] == about(name)["header"]
    assert [row for row, _ in decode_body(message.body, header.count, header.dictionary)] == rows_of(name)


@pytest.mark.parametrize("name", NAMES)
def test_a_golden_frame_verifies_and_its_chain_holds(name: str) -> None:
    message = open_envelope((FOLDER / f"{name}.bin").read_bytes())
    public = bytes.fromhex(about(name)["public"])
    verify(public, message.signature, message.signed)
    with pytest.raises(NotVerified):
        verify(public, message.signature, message.signed + b"x")
    header = FrameHeader.parse(message.header)
    assert chain(header.h_before, rows_of(name))[-1] == header.h_after


@pytest.mark.parametrize("name", [name for name in NAMES if about(name)["encodes"]])
def test_the_rows_of_a_golden_frame_are_encoded_as_before(name: str) -> None:
    assert b"".join(plain_body(rows_of(name))).hex() == about(name)["plain"]


def test_every_kind_of_frame_that_the_generator_knows_is_kept() -> None:
    assert {f"v1-{name}" for name in make.FRAMES} <= set(NAMES)
