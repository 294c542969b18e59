"""Hostile inputs, faults and kills for `scripts/attack.py`."""
