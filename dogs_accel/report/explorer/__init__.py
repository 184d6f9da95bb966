"""The explorer of mistakes: a page beside the report that answers questions about single images and classes."""
