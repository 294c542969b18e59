"""Constitutions: their format, loading, programmatic checks and advice."""

from rlaif.constitution.load import LoadedConstitution, load_constitution
from rlaif.constitution.schema import Constitution, Principle

__all__ = ["Constitution", "LoadedConstitution", "Principle", "load_constitution"]
