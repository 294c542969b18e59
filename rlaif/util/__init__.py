"""Small tools that know nothing of preferences."""
