"""The one loop, for both parts."""
