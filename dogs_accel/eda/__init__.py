"""The data before any training: one pass over the files, its tables, duplicates and figures."""
