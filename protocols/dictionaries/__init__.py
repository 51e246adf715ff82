"""Preset zlib dictionaries, one file per version. None is ever changed or removed: old frames need them."""
