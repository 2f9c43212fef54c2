"""Application. The worker: takes messages from queues and has them run."""
