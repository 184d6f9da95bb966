"""The experiment: its settings, its plan, its runs, and what is said of them."""
