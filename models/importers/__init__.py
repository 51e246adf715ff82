"""Readers of publishers' original files, with their quirks, into canonical events."""
