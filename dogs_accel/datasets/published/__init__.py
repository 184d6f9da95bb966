"""What was published about datasets: a module each, and what all of them are made of."""
