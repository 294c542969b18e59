"""Writes what a labeling run found as one self-contained page."""
