"""A finished run on images: what it says, and how good that is."""
