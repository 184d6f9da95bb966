"""The layouts that are recognised on disk, a module each: how to tell one, and how to open it."""
