"""The central order store behind one port, with one module per engine."""
