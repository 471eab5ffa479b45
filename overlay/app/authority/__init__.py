"""Who may be here: a node's part in the authority of its mesh, put together and carried by trio."""
