"""Whole numbers as text: signs for the small ones, figures for all others.

A sign is one printable character: its number plus 64, from -32 to 62. DEL stands for any other number, which is then found at the front
of `figures`. Figures travel as decimal text, which Huffman codes pack better than any binary form: random digits stay 3.5 bits, round
amounts get cheaper, and no lengths are needed, because the first digit of each number is written with a character of its own
(`0`-`9` as `:`-`C`, after a minus as `D`-`M`): `12 0 -7 305` is `;2:K=05`.
"""

from __future__ import annotations

import re
from array import array
from typing import Final

from protocols.errors import DecodeError

_DIGITS: Final = [(f" -{digit}", chr(0x44 + digit)) for digit in range(10)] + [(f" {digit}", chr(0x3A + digit)) for digit in range(10)]
_TOO_LONG: Final = re.compile("[0-9]{21}")
_FIGURES_ONLY: Final = re.compile(r"[0-9:-M]*")
_SIGNS_ONLY: Final = re.compile(rb"[\x20-\x7f]*")
_PLAIN_SIGNS: Final = re.compile(rb"[\x20-\x7e]*")
_SIGN_ZERO: Final = 64
SIGN_LEAST, SIGN_MOST, _ELSEWHERE = -32, 62, 63
_ELSEWHERE_SIGN: Final = bytes((_SIGN_ZERO + _ELSEWHERE,))
_TO_SIGNS: Final = bytes((number + _SIGN_ZERO) % 256 for number in range(256))
_FROM_SIGNS: Final = bytes((sign - _SIGN_ZERO) % 256 for sign in range(256))
"""between small numbers, as bytes with a sign, and their characters: a frame has thousands"""


def write_numbers(signs: list[int], figures: list[int]) -> tuple[str, str]:
    """Both streams of numbers as text."""
    text = _plain_signs(signs)
    if text is None:
        elsewhere = [number for number in signs if not SIGN_LEAST <= number <= SIGN_MOST]
        figures = elsewhere + figures
        signs = [number if SIGN_LEAST <= number <= SIGN_MOST else _ELSEWHERE for number in signs]
        text = bytes(map(_SIGN_ZERO.__add__, signs))
    return text.decode("ascii"), "".join(map(_LEADS.__getitem__, figures))


def _plain_signs(signs: list[int]) -> bytes | None:
    """All signs as characters, if none is too large for one: nearly always, so it is tried before it is looked at."""
    try:
        text = array("b", signs).tobytes().translate(_TO_SIGNS)
    except OverflowError:
        return None
    return text if _PLAIN_SIGNS.fullmatch(text) else None


class _Leads(dict[int, str]):
    """Numbers as figures: the small ones looked up, because they are most, the others made when asked for."""

    def __missing__(self, number: int) -> str:
        plain = str(number)
        first = 2 if number < 0 else 1
        return _LEAD[plain[:first]] + plain[first:]


def read_numbers(signs_text: bytes, figures_text: str) -> tuple[list[int], list[int]]:
    """The streams that `write_numbers` wrote. Raises `DecodeError` for other characters or a number beyond 21 digits."""
    if not _FIGURES_ONLY.fullmatch(figures_text) or _TOO_LONG.search(figures_text) or not _SIGNS_ONLY.fullmatch(signs_text):
        raise DecodeError("the body's numbers are not numbers")
    for plain, lead in _DIGITS:
        figures_text = figures_text.replace(lead, plain)
    figures = list(map(int, figures_text.split()))
    signs = memoryview(signs_text.translate(_FROM_SIGNS)).cast("b").tolist()
    if _ELSEWHERE_SIGN in signs_text:
        signs, figures = _with_elsewhere(signs, figures)
    return signs, figures


def _with_elsewhere(signs: list[int], figures: list[int]) -> tuple[list[int], list[int]]:
    total = signs.count(_ELSEWHERE)
    if total > len(figures):
        raise DecodeError("the body ends early")
    elsewhere = iter(figures[:total])
    return [next(elsewhere) if number == _ELSEWHERE else number for number in signs], figures[total:]


_LEAD: Final = {plain.strip(): lead for plain, lead in _DIGITS}
_LEADS: Final = _Leads()
_LEADS.update({number: _LEADS[number] for number in range(-1_000, 2_000)})
