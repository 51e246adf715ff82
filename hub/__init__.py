"""A regional or central node: it admits edges, takes their facts, returns receipts and shows one consolidated view."""
