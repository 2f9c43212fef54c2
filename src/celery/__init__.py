"""Application. A distributed task queue."""
