"""Hypothesis strategies for events, shared by the tests of JSON and of rows."""

from __future__ import annotations

from typing import Literal

from hypothesis import strategies as st

from protocols.event import LAST_MS, OrderEvent, TimeQuality, quality_of
from protocols.lifecycle import Status

NOW_MS = 1_780_000_000_000
_NOT_TEXT: tuple[Literal["Cc", "Cs"], ...] = ("Cc", "Cs")

texts = st.text(st.characters(exclude_categories=_NOT_TEXT), min_size=1, max_size=128).filter(lambda text: not text.isspace())
orgs = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", fullmatch=True)
_keys = st.text(st.characters(exclude_categories=_NOT_TEXT), min_size=1, max_size=20)
_CONTROLS = "".join(map(chr, [*range(9), 11, 12, *range(14, 32), *range(127, 160)]))
_notes = st.text(st.characters(codec="utf-8", exclude_characters=_CONTROLS))
_scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | _notes
_values: st.SearchStrategy[object] = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_keys, inner, max_size=4), max_leaves=8
)
details: st.SearchStrategy[dict[str, object]] = st.dictionaries(_keys, _values, max_size=5)


@st.composite
def events(draw: st.DrawFn) -> OrderEvent:
    """Any valid event, as `parse_event` would have made it at NOW_MS."""
    happened_ms = draw(st.none() | st.integers(0, LAST_MS) | st.integers(NOW_MS - 10**9, NOW_MS))
    quality = TimeQuality.UNKNOWN if happened_ms is None else quality_of(happened_ms, NOW_MS)
    return OrderEvent(
        org=draw(orgs),
        order_id=draw(texts),
        source=draw(texts),
        status=draw(st.sampled_from(Status)),
        happened_ms=happened_ms,
        quality=quality,
        region=draw(st.none() | texts),
        site=draw(st.none() | texts),
        actor=draw(st.none() | texts),
        details=draw(details),
        idempotency_key=draw(st.none() | texts),
    )


json_values: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(st.characters(exclude_categories=())), inner, max_size=5),
    max_leaves=20,
)
"""whatever `json.loads` can return, lone surrogates and NaN included"""
