"""What carries a sweep out: the study that all workers share, the data that they open, one trial, and a worker."""
