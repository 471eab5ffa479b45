"""Who holds the mesh key, and what is done with it."""
