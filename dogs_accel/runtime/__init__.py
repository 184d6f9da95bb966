"""What a command runs on: files, devices, number types, memory, processes, time."""
