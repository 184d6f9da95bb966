"""What a model looked at: heat maps, their scores, their drawings."""
