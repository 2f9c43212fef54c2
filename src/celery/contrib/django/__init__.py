"""Entrance. What Django projects use beside the app itself."""
