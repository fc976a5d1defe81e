"""What can be set, and what fills it: defaults < YAML < command line."""
