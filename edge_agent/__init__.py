"""A node at the edge: it captures orders with or without a link, answers the LAN, and syncs when it can."""

__version__ = "0.1.0"
