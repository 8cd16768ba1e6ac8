"""What can be built on `resilience`: adapters for web frameworks, and a whole backend."""
