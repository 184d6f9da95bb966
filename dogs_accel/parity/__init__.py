"""The loaders against the reference: the same pixels, and the same answers of a real model."""
