"""The tests: see ARCHITECTURE.md for what each folder holds."""
