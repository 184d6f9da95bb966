"""What carries a sweep out: the study that all workers share, one trial, and a worker."""
