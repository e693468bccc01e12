"""``hourbook config``: the settings, their values and sources."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exchange.cli.access import Json
from exchange.cli.output import Exit, fail, group, show_json, show_table

if TYPE_CHECKING:
    from exchange.app.settings import Effective

app = group("Settings and limits.")

ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="TOML file of settings; see `hourbook config show`.")
]


@app.callback()
def settings() -> None:
    """Settings and limits."""


@app.command("show")
def show(file: ConfigFile = None, as_json: Json = False) -> None:
    """Show every setting in force, where it came from, and every fixed limit."""
    show_settings(gather(file, {}), as_json)


def gather(file: Path | None, flags: Mapping[str, object]) -> "Effective":
    """Return the settings of a file, the environment and flags. Fails, naming what is wrong."""
    from exchange.app.settings import SettingsError, load  # noqa: PLC0415

    try:
        return load(file, os.environ, flags)
    except SettingsError as error:
        fail(str(error), Exit.USAGE)


def show_settings(effective: "Effective", as_json: bool) -> None:
    """Print the settings in force."""
    entries = effective.entries()
    if as_json:
        show_json({entry.name: entry._asdict() for entry in entries})
        return
    rows = [(entry.name, setting_text(entry.value), entry.source, entry.text) for entry in entries]
    show_table(("setting", "value", "source", "meaning"), rows, left=4)


def setting_text(value: object) -> str:
    """Return a setting as TOML and the environment have it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return ",".join(value) if isinstance(value, tuple) else str(value)
