"""Mirrors `hub/store`: what is particular to SQLite, and the pure fold. What every store does is in `tests/conformance/store`."""
