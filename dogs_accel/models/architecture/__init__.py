"""What a network is made of: its stages, in the order in which an image passes them, and what each of them costs."""
