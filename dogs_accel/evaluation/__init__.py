"""What follows from the logits of a split: scores, intervals, comparisons, mistakes."""
