"""Confirming a sweep: its best settings and a baseline with other seeds, compared, and one of them tested."""
