"""Entrance. An extension of Sphinx that documents tasks as tasks (`[contrib.3]`).

In a project's `conf.py`: `extensions = ["celery.contrib.sphinx"]`. `automodule` then shows tasks, and `autotask` a
single one. `celery_task_prefix` is the word before a task's name, `(task)` unless it is set.
"""

from __future__ import annotations

from inspect import Parameter, signature
from typing import Any

from docutils import nodes
from sphinx.domains.python import PyFunction
from sphinx.ext.autodoc import FunctionDocumenter

from celery.app.task import Task
from celery.local import PromiseProxy

__all__ = ["TaskDirective", "TaskDocumenter", "setup"]


class TaskDocumenter(FunctionDocumenter):  # type: ignore[misc]  # Sphinx is optional
    """Documents a task: the signature and the text of its function."""

    objtype = "task"
    member_order = 11

    @classmethod
    def can_document_member(cls, member: Any, membername: str, isattr: bool, parent: Any) -> bool:
        """Tasks that were made of functions."""
        return _is_task(member)

    def format_args(self, **kwargs: Any) -> str:
        """The function's signature; without `self`, which the caller of a bound task does not give."""
        try:
            found = signature(self.object.run)
        except (TypeError, ValueError):
            return ""
        parameters = [one.replace(annotation=Parameter.empty) for one in found.parameters.values()]
        return str(found.replace(parameters=parameters, return_annotation=found.empty))

    def document_members(self, all_members: bool = False) -> None:
        """A task has none that its readers would look for."""

    def check_module(self) -> bool:
        """Whether it is of the module that is documented. A task knows its function's."""
        wanted = self.options.get("imported_members")
        return bool(wanted) or getattr(self.object, "__module__", None) == self.modname


class TaskDirective(PyFunction):  # type: ignore[misc]  # Sphinx is optional
    """`.. py:task::`: a function with a word before its name."""

    def get_signature_prefix(self, sig: str) -> list[nodes.Node]:
        """The word."""
        return [nodes.Text(self.env.config.celery_task_prefix), nodes.Text(" ")]


def _is_task(member: Any) -> bool:
    return isinstance(member, (Task, PromiseProxy)) and callable(getattr(member, "run", None))


def _skip(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
    """Tasks have a text of their own, which Sphinx does not find; None leaves it to Sphinx."""
    if _is_task(obj) and getattr(obj.run, "__doc__", None):
        return False
    return None


def _ask_documenters(app: Any, config: Any) -> None:
    """Sphinx 9 asks classes such as ours for the members of modules only if it is told to."""
    if hasattr(config, "autodoc_use_legacy_class_based"):
        config.autodoc_use_legacy_class_based = True


def setup(app: Any) -> dict[str, bool]:
    """Called by Sphinx."""
    app.setup_extension("sphinx.ext.autodoc")
    app.add_autodocumenter(TaskDocumenter)
    app.add_directive_to_domain("py", "task", TaskDirective)
    app.add_config_value("celery_task_prefix", "(task)", True)
    app.connect("autodoc-skip-member", _skip)
    app.connect("config-inited", _ask_documenters, priority=1)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
