"""The judge for Python programs, servers and harnesses."""
