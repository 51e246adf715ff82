"""Unit tests; the files mirror the source."""
