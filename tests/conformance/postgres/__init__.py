"""What only the store on PostgreSQL can get into; the suite of the port is in `tests/conformance/store`."""
