"""One suite for every central store; see `kinds.py` for how another engine joins."""
