"""The pytest fixtures that come with the library; pytest finds them by entry point, nothing is imported."""
