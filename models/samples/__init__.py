"""Real orders shipped with the product, each with its provenance and a data card."""
