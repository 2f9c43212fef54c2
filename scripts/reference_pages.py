"""mkdocs hook: the pages made from the code at each build (settings, API), and the navigation of decisions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

SOURCE = Path(__file__).resolve().parents[1] / "src"

#: Public modules, in reading order; one that does not exist yet is left out.
PUBLIC = (
    "celery.app.base", "celery.app.task", "celery.result", "celery.canvas", "celery.states", "celery.exceptions",
    "celery.signals", "celery.schedules", "celery.ports", "celery.message", "celery.outcome",
)  # fmt: skip


def settings_page() -> str:
    """Every setting, by group, from the table that the program itself reads."""
    sys.path.insert(0, str(SOURCE))
    from celery.settings import SETTINGS, Setting  # from the checkout, not an installed one

    groups: dict[str, list[Setting]] = {}
    for setting in SETTINGS:
        groups.setdefault(setting.group, []).append(setting)
    lines = [
        "# Settings", "",
        "All settings, from the table that the program reads. `app.conf.NAME = value` sets one, as do a configuration",
        "module (`app.config_from_object`) and `NAME=value` behind the worker's command line.", "",
    ]  # fmt: skip
    for group, members in sorted(groups.items()):
        lines += [f"## {group or 'general'}", "", "| setting | type | default | old name | |", "|---|---|---|---|---|"]
        lines += [_line(setting) for setting in sorted(members, key=lambda s: s.name)]
        lines.append("")
    return "\n".join(lines)


def _line(setting: Any) -> str:
    note = setting.description
    if setting.deprecate_by:
        instead = f": use `{setting.alt}`" if setting.alt else ""
        note = f"{note} (deprecated{instead})".strip()
    old = f"`{setting.old}`" if setting.old else ""
    cells = (f"`{setting.name}`", setting.type, f"`{setting.default!r}`", old, note)
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def api_page() -> str:
    there = [name for name in PUBLIC if _exists(name)]
    return "\n".join(["# API", "", *(f"::: {name}\n" for name in there)])


def _exists(name: str) -> bool:
    *packages, last = name.split(".")
    folder = SOURCE.joinpath(*packages)
    whole = all((SOURCE.joinpath(*packages[: n + 1]) / "__init__.py").exists() for n in range(len(packages)))
    return whole and ((folder / f"{last}.py").exists() or (folder / last / "__init__.py").exists())


def commands_page() -> str:
    """Every command with its options, as `--help` says it."""
    sys.path.insert(0, str(SOURCE))
    import click

    from celery.bin.celery import celery

    lines = ["# Command line", "", "What `--help` says of each command.", ""]

    def add(command: click.Command, parent: click.Context | None, name: str) -> None:
        with click.Context(command, parent=parent, info_name=name, max_content_width=100) as context:
            lines.extend((f"## {context.command_path}", "", "```text", context.get_help(), "```", ""))
            if isinstance(command, click.Group):
                for word in command.list_commands(context):
                    found = command.get_command(context, word)
                    if found is not None:
                        add(found, context, word)

    add(celery, None, "celery")
    return "\n".join(lines)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put every decision into the navigation."""
    for section in config.nav or ():
        if isinstance(section, dict) and "Decisions" in section:
            pages = Path(config.docs_dir, "decisions").glob("0*.md")
            section["Decisions"] += sorted(f"decisions/{page.name}" for page in pages)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    from mkdocs.structure.files import File  # the tests use this module without mkdocs

    pages = {
        "reference/settings.md": settings_page(),
        "reference/commands.md": commands_page(),
        "reference/api.md": api_page(),
    }
    for uri, content in pages.items():
        files.append(File.generated(config, uri, content=content))
    return files
