"""What a model costs beside what it is worth: parameters, operations, memory, and the time of its answers."""
