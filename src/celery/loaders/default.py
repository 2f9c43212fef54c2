"""Application. The loader of the default app: it reads `celeryconfig`, or what `CELERY_CONFIG_MODULE` names."""

from __future__ import annotations

import os
import warnings
from typing import TYPE_CHECKING, Any

from celery.exceptions import NotConfigured
from celery.loaders.base import BaseLoader
from celery.utils.collections import DictAttribute

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DEFAULT_CONFIG_MODULE", "Loader"]

DEFAULT_CONFIG_MODULE = "celeryconfig"


class Loader(BaseLoader):
    """Reads the module `celeryconfig`."""

    def setup_settings(self, settingsdict: Mapping[str, Any]) -> Any:
        """Settings of a mapping, as items and as attributes."""
        return DictAttribute(settingsdict)

    def read_configuration(self, fail_silently: bool = True) -> Any:  # type: ignore[override]
        """The module's settings. Where there is none: warns `NotConfigured` ([loader.3]), or raises if told to."""
        name = os.environ.get("CELERY_CONFIG_MODULE") or DEFAULT_CONFIG_MODULE
        try:
            found = self._import_config_module(name)
        except ImportError:
            if not fail_silently:
                raise
            if not os.environ.get("C_WNOCONF"):
                return self.setup_settings({})
            warnings.warn(
                f"expected a module {name!r} with settings, found none: using the defaults",
                NotConfigured,
                stacklevel=2,
            )
            return self.setup_settings({})
        self.configured = True
        return self.setup_settings(found)
