"""How the backend reaches the world. Each module answers the protocols that the domain states."""
