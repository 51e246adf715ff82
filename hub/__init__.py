"""A regional or central node: it admits edges, takes their facts, returns receipts and shows one consolidated view."""

__version__ = "0.1.0"
