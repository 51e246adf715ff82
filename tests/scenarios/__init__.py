"""Short stories through the real processes; each test's name is a sentence."""
