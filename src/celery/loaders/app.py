"""Application. The loader of apps that are made explicitly: it reads what the app is told to."""

from celery.loaders.base import BaseLoader

__all__ = ["AppLoader"]


class AppLoader(BaseLoader):
    """Reads the app's config source."""
