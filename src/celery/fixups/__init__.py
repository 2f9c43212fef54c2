"""Application. Fixups: callables that fit an app into its surroundings ([app.43])."""
