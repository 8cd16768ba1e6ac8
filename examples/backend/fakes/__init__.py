"""Stand-ins for what the backend depends on, each a process of its own that can be told to fail."""
