"""Mutation testing of the compiled core: does a test fail for every small change of a file?

    python tests/mutants.py exchange/engine/matching.pyx [--first N] [--count N] [--json FILE]

The tools of the field (mutmut, cosmic-ray) change Python's syntax tree and cannot read Cython, so
this one changes lines: comparisons, signs, conjunctions, and statements left out. Every mutant is
built with the core's checks on, in a copy of the checkout, and meets TESTS in order until one
fails. Exit code 1 if any survives. What survives and why: docs/concepts/testing.md.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).parents[1]
TESTS: Final = (
    "tests/test_matching_vectors.py",
    "tests/test_engine_rules.py",
    "tests/test_engine_properties.py",
    "tests/test_engine.py::test_batches_do_not_matter",
)
SECONDS_MAX: Final = 180  # of one mutant's tests; a loop without an end is a failure too
SWAPS: Final = (
    (" < ", " <= "), (" <= ", " < "), (" > ", " >= "), (" >= ", " > "), (" == ", " != "),
    (" != ", " == "), (" + ", " - "), (" - ", " + "), (" += ", " -= "), (" -= ", " += "),
    (" and ", " or "), (" or ", " and "), ("not ", ""), (" * ", " + "),
)  # fmt: skip
STATEMENT: Final = re.compile(
    r"^ +(?!cdef|return|if|elif|else|while|for|break|pass|\"|#)[\w.\[\]&]+.*$"
)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one line."""

    file: str
    line: int
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a mutant; ``by`` is the first test that failed, or what stopped it."""

    mutant: Mutant
    killed: bool
    by: str


def code_lines(text: str) -> Iterator[tuple[int, str]]:
    """Numbered lines inside functions, without docstrings, comments and continued statements."""
    inside, quoted, depth = False, False, 0
    for number, line in enumerate(text.splitlines(), 1):
        opened = depth
        depth += line.count("(") - line.count(")")
        if '"""' in line:
            quoted ^= line.count('"""') == 1
            continue
        if re.match(r"c?p?def |cdef inline", line):
            inside = True
        elif line and not line.startswith(" "):
            inside = False
        header = re.match(r"cdef .*\(|  +.* noexcept nogil:$", line)
        if inside and not quoted and line.strip() and not header:
            yield (number if opened == 0 and depth == 0 else -number), line


def mutants(file: str) -> Iterator[Mutant]:
    """Every change of the file, in the order of its lines."""
    for number, line in code_lines((CHECKOUT / file).read_text()):
        code, hash_sign, comment = line.partition("  #")
        if code.lstrip().startswith("#"):
            continue
        for old, new in SWAPS:
            for match in re.finditer(re.escape(old), code):
                changed = code[: match.start()] + new + code[match.end() :]
                yield Mutant(file, abs(number), line, changed + hash_sign + comment)
        if number > 0 and STATEMENT.match(code):
            indent = len(code) - len(code.lstrip())
            yield Mutant(file, number, line, " " * indent + "pass")


def judge(copy: Path, mutant: Mutant) -> Outcome:
    """Build the mutant in the copy and run the tests; the file is put back."""
    path = copy / mutant.file
    original = path.read_text()
    lines = original.splitlines(keepends=True)
    lines[mutant.line - 1] = mutant.after + "\n"
    path.write_text("".join(lines))
    environment = os.environ | {"HOURBOOK_CHECKED": "1", "HOURBOOK_STALE": "allow"}
    try:
        build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
        done = subprocess.run(build, cwd=copy, env=environment, capture_output=True, check=False)
        if done.returncode:
            return Outcome(mutant, True, "the compiler")
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *TESTS]
        tested = subprocess.run(
            command, cwd=copy, env=environment, capture_output=True, text=True,
            timeout=SECONDS_MAX, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Outcome(mutant, True, "a loop without an end")
    finally:
        path.write_text(original)
    failed = re.search(r"^FAILED (\S+)", tested.stdout, re.MULTILINE)
    by = failed[1] if failed else "a crash" if tested.returncode else ""
    return Outcome(mutant, tested.returncode != 0, by)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", help="relative to the checkout")
    parser.add_argument("--first", type=int, default=0, help="begin with this mutant")
    parser.add_argument("--count", type=int, help="judge so many")
    parser.add_argument("--json", type=Path, help="append every outcome, a line each")
    options = parser.parse_args()
    chosen = [mutant for file in options.files for mutant in mutants(file)][options.first :]
    chosen = chosen[: options.count]
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "hourbook"
        shutil.copytree(CHECKOUT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "build"))
        build = [sys.executable, "setup.py", "-q", "build_ext", "--inplace", "--force"]
        checked = os.environ | {"HOURBOOK_CHECKED": "1"}
        subprocess.run(build, cwd=copy, env=checked, capture_output=True, check=True)
        for number, mutant in enumerate(chosen, options.first):
            outcome = judge(copy, mutant)
            survivors += not outcome.killed
            told = outcome.by or "SURVIVED"
            print(f"{number} {mutant.file}:{mutant.line} {told}", file=sys.stderr, flush=True)
            if not outcome.killed:
                print(f"{mutant.file}:{mutant.line}\n- {mutant.before}\n+ {mutant.after}")
            if options.json:
                with open(options.json, "a") as out:
                    out.write(json.dumps(asdict(outcome)) + "\n")
    print(f"{len(chosen)} mutants, {survivors} survived")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
