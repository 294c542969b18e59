"""Toys on which models that learn from models collapse, and what keeps them from it."""
