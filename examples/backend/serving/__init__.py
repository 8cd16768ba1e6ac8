"""How each server is run, and ended in our order."""
