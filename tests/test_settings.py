"""Settings: where each comes from, what is refused, and that the reference says the same."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from served import CHECKOUT, COMMAND

from exchange.app.settings import (
    DEFAULT,
    ENVIRONMENT,
    FIELDS,
    FILE,
    FIXED,
    FLAG,
    SettingsError,
    fixed,
    load,
    variable,
)
from exchange.cli.config import setting_text


def written(folder: Path, text: str) -> Path:
    path = folder / "hourbook.toml"
    path.write_text(text)
    return path


def test_a_flag_goes_before_the_environment_before_the_file_before_the_default(
    tmp_path: Path,
) -> None:
    file = written(tmp_path, '[serve]\nhost = "a"\nport = 1\ndata = "x"\n')
    environment = {"HOURBOOK_SERVE_PORT": "2", "HOURBOOK_SERVE_DATA": "y", "HOME": "z"}
    found = load(file, environment, {"serve.data": "w", "serve.log_format": None})
    serve = found.settings.serve
    assert (serve.host, serve.port, serve.data, serve.log_format) == ("a", 2, "w", "text")
    entries = {entry.name: entry.source for entry in found.entries()}
    assert entries["serve.host"] == FILE
    assert entries["serve.port"] == ENVIRONMENT
    assert entries["serve.data"] == FLAG
    assert entries["serve.log_format"] == DEFAULT
    assert entries["gateway.backlog_bytes"] == FIXED


def test_every_setting_can_be_given_by_file_and_by_environment(tmp_path: Path) -> None:
    plain = load()
    lines: dict[str, list[str]] = {}
    environment = {}
    for entry in plain.entries():
        if entry.source == FIXED:
            continue
        section, _, key = entry.name.partition(".")
        value = list(entry.value) if isinstance(entry.value, tuple) else entry.value
        lines.setdefault(section, [f"[{section}]"]).append(f"{key} = {json.dumps(value)}")
        environment[variable(entry.name)] = ",".join(value) if value == [] else str(value)
    file = written(tmp_path, "\n".join("\n".join(section) for section in lines.values()))
    assert load(file).settings == load(None, environment).settings == plain.settings
    assert set(load(file).sources.values()) == {FILE}
    assert set(load(None, environment).sources.values()) == {ENVIRONMENT}


def test_origins_are_a_list_in_a_file_and_separated_by_commas_in_the_environment(
    tmp_path: Path,
) -> None:
    wanted = ("https://a.example", "https://b.example")
    file = written(tmp_path, f"[serve]\norigins = {json.dumps(wanted)}\n")
    assert load(file).settings.serve.origins == wanted
    for separator in (",", ", "):
        environment = {"HOURBOOK_SERVE_ORIGINS": separator.join(wanted)}
        assert load(None, environment).settings.serve.origins == wanted


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[serve]\nprot = 1\n", "serve.prot: no such setting; did you mean serve.port?"),
        ("[limit]\n", "limit: no such section; there are serve, limits"),
        ("serve = 1\n", "write [serve]"),
        ("[serve]\nport = 65536\n", "file: serve.port = 65536"),
        ('[serve]\nport = "80"\n', "file: serve.port = '80'"),
        ("[limits]\ndrain_seconds = -1\n", "limits.drain_seconds"),
        ('[serve]\nmetrics = "all"\n', "serve.metrics = 'all'"),
        ('[serve]\nmetrics = "all"\n', "it is one of loopback, any, off"),
        ("[serve\n", "cannot be read"),
        ('[serve]\nheads = "a\\u0000"\n', "file: serve.heads = 'a\\x00': no path"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load(written(tmp_path, text))
    assert named in str(refused.value)


@pytest.mark.parametrize(
    ("key", "value", "named"),
    [
        ("HOURBOOK_SERVE_HOST", "", "HOURBOOK_SERVE_HOST = ''"),  # no word for every address
        ("HOURBOOK_SERVE_DATA", "", "HOURBOOK_SERVE_DATA = ''"),
        ("HOURBOOK_SERVE_PROT", "1", "did you mean HOURBOOK_SERVE_PORT?"),
        ("HOURBOOK_SERVE_PORT", "high", "environment: HOURBOOK_SERVE_PORT = 'high'"),
        ("HOURBOOK_LIMITS_CLEARING_FRAMES", "0", "HOURBOOK_LIMITS_CLEARING_FRAMES"),
    ],
)
def test_the_environment_is_refused_by_name(key: str, value: str, named: str) -> None:
    with pytest.raises(SettingsError) as refused:
        load(None, {key: value})
    assert named in str(refused.value)


def test_other_programs_variables_are_none_of_ours() -> None:
    assert load(None, {"HOURBOOK_CHECKED": "1", "SERVE_PORT": "1"}).sources["serve.port"] == DEFAULT


def test_the_reference_has_every_setting_and_limit_with_its_value() -> None:
    page = (CHECKOUT / "docs/reference/configuration.md").read_text()
    rows = re.findall(
        r"^\| `([^`]+)` \| `([^`]*)` \| (?:`([^`]+)` \| )?(.+) \|$", page, re.MULTILINE
    )
    told = {name: (value, key, text) for name, value, key, text in rows}
    wanted = {}
    for entry in load().entries():
        wanted[entry.name] = (setting_text(entry.value), entry.variable, entry.text)
    assert told == wanted
    assert len(wanted) == len(FIELDS) + len(fixed())


def test_the_command_line_shows_what_is_in_force_and_names_what_is_wrong(tmp_path: Path) -> None:
    file = written(tmp_path, "[serve]\nport = 9\n")
    shown = [*COMMAND, "config", "show", "--config", str(file), "--json"]
    done = subprocess.run(shown, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["serve.port"]["value"] == 9
    served = [*COMMAND, "serve", "--config", str(file), "--port", "8", "--show-config"]
    done = subprocess.run(served, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert re.search(r"^serve\.port +8 +flag +TCP port", done.stdout, re.MULTILINE)
    as_json = [*served, "--json"]
    done = subprocess.run(as_json, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["serve.port"]["value"] == 8
    written(tmp_path, "[serve]\nprot = 9\n")
    done = subprocess.run(served, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "serve.prot" in done.stderr
