"""A log that nobody can quietly edit: signed entries in chains, replicated and verified. Works with no network."""
