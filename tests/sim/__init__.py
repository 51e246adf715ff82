"""The simulated world: virtual time, seeded faults, workload and outside checkers around the real cores."""
