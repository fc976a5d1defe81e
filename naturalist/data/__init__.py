"""Photographs → pixels on the device."""
