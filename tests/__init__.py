"""All tests. They may import everything; nothing imports them."""
