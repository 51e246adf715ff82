"""Benchmarks: each beside its peer in the same run, alternating, medians. A run that loses or repeats an event prints no rate."""
