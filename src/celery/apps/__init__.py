"""Application. The programs."""
