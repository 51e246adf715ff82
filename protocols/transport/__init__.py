"""A small port for moving frames, and its implementations; the only part of `protocols` that touches sockets."""
