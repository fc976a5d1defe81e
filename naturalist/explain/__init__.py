"""What a model has learnt and what it looks at."""
