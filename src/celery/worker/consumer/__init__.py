"""Flow. The worker's engine: from deliveries to settled outcomes."""
