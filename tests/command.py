"""The command line as the console script runs it, in this process: a start costs a second."""

import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from typing import Any, NamedTuple
from unittest import mock

from exchange.cli import root


class Done(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


def run(*arguments: object) -> Done:
    """Run a command, however it ends."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    argv = mock.patch.object(sys, "argv", ["hourbook", *map(str, arguments)])
    with argv, redirect_stdout(out), redirect_stderr(err):
        try:
            root.main()
        except SystemExit as end:
            code = int(end.code or 0)
    return Done(code, out.getvalue(), err.getvalue())


def hourbook(*arguments: object, code: int = 0) -> str:
    """Run a command; its stdout, or its stderr if it was to fail."""
    done = run(*arguments)
    assert done.returncode == code, done.stderr + done.stdout
    return done.stderr if code else done.stdout


def result(*arguments: object) -> Any:
    """What a command says in JSON."""
    return json.loads(hourbook(*arguments, "--json"))
