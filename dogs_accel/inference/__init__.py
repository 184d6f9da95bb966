"""A finished run's model on other photos, and as files that others can load."""
