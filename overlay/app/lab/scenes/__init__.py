"""Attacks on the lab's mesh, one small file each. Every scene first runs its control."""
