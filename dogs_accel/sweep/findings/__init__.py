"""What the trials of a sweep show, and what they do not: tables, sentences, figures, a report and the best settings."""
