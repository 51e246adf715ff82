"""Importers, the shipped sample, and the command line over them."""
