"""Sweeps: many short runs over a space of settings, from whose validation accuracy something may be concluded."""
