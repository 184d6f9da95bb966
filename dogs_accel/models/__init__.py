"""The networks: their names, how they are built and loaded, and which of their parameters train."""

MODES = ("head_only", "full_finetune")
"""What trains: the classifier on a frozen backbone, or everything."""
FAMILY_NAME = {"cnn": "CNN", "vit": "Transformer"}
"""Families as the published tables name them."""
