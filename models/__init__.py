"""What is known about orders beforehand: datasets and their importers; later the jeopardy models."""

__version__ = "0.1.0"
