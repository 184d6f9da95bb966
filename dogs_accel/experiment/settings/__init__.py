"""The settings of a benchmark: the dataclass, its presets, and how a command line and a file say them."""
