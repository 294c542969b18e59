"""The labeling loop and what surrounds it."""
