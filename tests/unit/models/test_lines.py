"""Bytes to lines: every line end, every chunk border, and what is no text."""

from __future__ import annotations

import gzip
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.importers import lines
from models.importers.lines import cells, decoded, physical_lines
from protocols.errors import InvalidInput


def read(data: bytes) -> list[bytes]:
    return list(physical_lines(io.BytesIO(data), "f.csv"))


@pytest.mark.parametrize("end", [b"\r", b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_each_line_end_of_the_world_ends_a_line_and_only_one(end: bytes, last: bool) -> None:
    data = end.join([b"a", b"", b"b"]) + (end if last else b"")
    assert [one for one in read(data) if one] == [b"a", b"b"]
    assert read(data).index(b"b") == 2


@given(
    found=st.lists(st.binary(max_size=9).map(lambda raw: raw.translate(None, b"\r\n\0\x1f\xef\xff\xfe")), min_size=1, max_size=12),
    end=st.sampled_from([b"\r", b"\n", b"\r\n"]), chunk_bytes=st.integers(1, 7),
)  # fmt: skip
def test_chunk_borders_do_not_show(found: list[bytes], end: bytes, chunk_bytes: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "CHUNK_BYTES", chunk_bytes)
        assert read(b"".join(one + end for one in found)) == found


def test_the_mark_is_not_part_of_the_first_cell() -> None:
    assert read(b"\xef\xbb\xbfID,a\r1,b") == [b"ID,a", b"1,b"]


def test_gzip_reads_as_what_is_in_it_and_the_owner_keeps_his_stream() -> None:
    stream = io.BytesIO(gzip.compress(b"\xef\xbb\xbfa\rb"))
    assert list(physical_lines(stream, "f")) == [b"a", b"b"]
    assert not stream.closed


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (gzip.compress(b"a\r" * 9_000)[:-9], "damaged gzip"),
        (gzip.compress(b"a")[:10] + b"garbage", "damaged gzip"),
        ("ID,a\r".encode("utf-16"), "UTF-16"),
        (b"a\0b\r", "NUL"),
        (b"x" * (lines.LINE_BYTES + 1), "longer than"),
        (b"x" * (lines.LINE_BYTES + 1) + b"\ry", "longer than"),
    ],
)
def test_what_is_no_text_in_lines_is_refused_by_name(data: bytes, words: str) -> None:
    with pytest.raises(InvalidInput, match=words) as caught:
        read(data)
    assert caught.value.field == "f.csv"


def test_an_endless_line_is_refused_before_it_is_held() -> None:
    class Endless(io.RawIOBase):
        given_bytes = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
            assert self.given_bytes <= lines.LINE_BYTES + 2 * lines.CHUNK_BYTES, "it reads on and on"
            buffer[:] = b"x" * len(buffer)
            self.given_bytes += len(buffer)
            return len(buffer)

    with pytest.raises(InvalidInput, match="longer than"):
        list(physical_lines(Endless(), "f"))  # type: ignore[arg-type]


def test_a_disk_that_fails_while_reading_is_named_as_such() -> None:
    class Failing(io.RawIOBase):
        def readable(self) -> bool:
            return True

        def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
            raise OSError(5, "Input/output error")

    with pytest.raises(InvalidInput, match=r"f: cannot be read \(Input/output error\)"):
        list(physical_lines(Failing(), "f"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("raw", "text"),
    [("ô€".encode(), ("ô€", True)), ("ô€".encode("cp1252"), ("ô€", False)), (b"\xf4\x81", ("ô\x81", False))],
)
def test_text_that_is_not_utf_8_is_read_as_the_spreadsheet_wrote_it(raw: bytes, text: tuple[str, bool]) -> None:
    assert decoded(raw) == text


def test_cells_are_stripped_and_open_quotes_are_an_error_of_this_line_only() -> None:
    assert cells(' a ,"b, ""c""",') == ["a", 'b, "c"', ""]
    with pytest.raises(ValueError):
        cells('a,"b')
