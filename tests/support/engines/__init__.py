"""Real engines for tests, started natively on free ports and ended by their process id."""
