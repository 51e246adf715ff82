"""Golden frames, and the generator that made them."""
