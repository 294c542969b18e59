"""Product logs made into human preferences: events, personal data, preferences, files."""
