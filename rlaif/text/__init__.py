"""Compares texts: duplicates, novelty, diversity, tails."""
