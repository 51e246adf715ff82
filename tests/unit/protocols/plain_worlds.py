"""Hypothesis strategies for whatever msgpack can say, shared by the tests of the codec and of bodies."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

plain_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text() | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)
