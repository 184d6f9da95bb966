"""How fast the loaders are, with and without a model, and who waits for whom."""
