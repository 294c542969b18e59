"""Recipes: one YAML file for a chain of commands."""
