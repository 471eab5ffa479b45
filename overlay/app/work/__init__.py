"""Running signed work: the worker, its launcher, what a scheduler needs, and how files get from node to node."""
