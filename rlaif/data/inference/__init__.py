"""Which column plays which role: one file for each kind of role."""
