"""Fuzzing of every decoder that takes bytes from outside: `make fuzz`, 60 s each; crashers are kept and replayed by the tests for good."""
