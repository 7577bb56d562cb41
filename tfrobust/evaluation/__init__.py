"""Model, data and attacks in; a robustness report out."""
