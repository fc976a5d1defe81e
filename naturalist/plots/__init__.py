"""Figures: a style, and one file a subject."""
