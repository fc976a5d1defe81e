"""One page from everything that was done."""
