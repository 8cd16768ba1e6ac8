"""Keeps a Python service useful while the things it depends on fail."""
