"""Real processes killed and stopped in random order behind lines that lie, and the checkers that say what survived."""
