"""Searches over settings: ``sweep.yaml`` run here, and what its runs teach."""
