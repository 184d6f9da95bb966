"""From the bytes of a file to its pixels, by PIL and by NVIDIA DALI, which are to be the same."""
