"""A finished run as its files have it, and the tables over several."""
