"""What cleans: expired sessions, the sockets that belong to them, and a watch on memory."""
