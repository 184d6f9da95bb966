"""Sweeps: a space of settings, the trials of it, and what they show."""
