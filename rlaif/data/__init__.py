"""Reads rows of any layout, with their origins, licenses and slices."""
