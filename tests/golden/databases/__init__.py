"""Databases of released versions that must open for ever, and what is in them."""
