"""One suite for the transport port, over every implementation and every broker."""
