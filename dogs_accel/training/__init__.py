"""Training as data and as work: phases, steps, checkpoints, profiles, tracking."""
