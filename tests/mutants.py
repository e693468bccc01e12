"""Mutation testing of the compiled core: does a test fail for every small change of a file?

    python tests/mutants.py exchange/engine/matching.pyx [--first N] [--count N] [--tests FILE ...]

The tools of the field (mutmut, cosmic-ray) change Python's syntax tree and cannot read Cython, so
this one changes lines: comparisons, signs, conjunctions, and statements left out. All mutants of a
file are compiled at once, each behind a switch (a mutant schema), with the core's checks on, in a
copy of the checkout. Then each has a process of its own, which meets TESTS in order until one
fails. Exit code 1 if any survives. What survives and why: docs/concepts/testing.md.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Final

import pytest
from differences import Machine, Views
from generator import MIXED, Generator
from oracle import Oracle

from exchange.engine import Engine
from exchange.messages import COMMAND_BYTES

CHECKOUT: Final = Path(__file__).parents[1]
MARKETS: Final = 48  # random ones that are recorded
MARKET_COMMANDS: Final = 4_000
TESTS: Final = (
    "tests/test_engine_credits.py",
    "tests/test_engine_legwise.py",
    "tests/test_engine_corrections.py",
    "tests/test_engine_rules.py",
    "tests/test_auction_vectors.py",
    "tests/test_auction_rule.py",
    "tests/test_engine_auctions.py",
    "tests/test_engine_stops.py",
    "tests/test_engine_icebergs.py",
    "tests/test_engine_defects.py",
    "tests/test_engine_protections.py",
    "tests/test_engine_groups.py",
    "tests/test_matching_vectors.py",
)
QUIET: Final = ("-x", "-q", "--tb=no", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore",
                "-k", "not Oracle")  # fmt: skip
CPU_SECONDS: Final = 12  # of one test; a loop without an end is a failure too
MARKET_CPU_SECONDS: Final = 2  # of one random market
MODULE: Final = "--inside"  # how the runner calls itself in the copy
SWAPS: Final = (
    (" < ", " <= "), (" <= ", " < "), (" > ", " >= "), (" >= ", " > "), (" == ", " != "),
    (" != ", " == "), (" + ", " - "), (" - ", " + "), (" += ", " -= "), (" -= ", " += "),
    (" and ", " or "), (" or ", " and "), ("not ", ""), (" * ", " + "),
)  # fmt: skip
HEADER: Final = re.compile(r"(?P<head> +(?:if|elif|while) )(?P<body>.*)(?P<tail>:)", re.DOTALL)
VALUE: Final = re.compile(r"(?P<head> +(?:return|cdef [\w*]+ \w+ =) )(?P<body>.*)", re.DOTALL)
CALL: Final = re.compile(r" +(?!cdef|return|if|elif|else|while|for|break|pass|continue|global)\S")
UNCHANGED: Final = -1
SWITCH: Final = f"""

cdef int hourbook_mutant = {UNCHANGED}


def choose_mutant(int number):
    global hourbook_mutant
    hourbook_mutant = number
"""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of one statement."""

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


def statements(text: str) -> Iterator[tuple[int, int, str]]:
    """Of each statement inside a function: first line, lines, and the code without comments."""
    lines, at, inside = text.splitlines(), 0, False
    while at < len(lines):
        first, code, depth, quoted = at, [], 0, False
        while True:
            line = lines[at]
            quoted ^= line.count('"""') % 2 == 1
            bare = re.sub(r"(^|  )#.*", "", line)
            depth += len(re.findall(r"[([]", bare)) - len(re.findall(r"[)\]]", bare))
            code.append(bare.rstrip())
            at += 1
            if not (quoted or depth):
                break
        whole = "\n".join(code)
        if re.match(r"\S", whole):
            inside = re.match(r"(cdef|cpdef|def) [^\n]*\(", whole) is not None
        elif inside and whole.strip() and '"""' not in whole:
            yield first, at - first, whole


def changes(code: str) -> Iterator[str]:
    """Every change of one statement that the schema can switch."""
    if HEADER.fullmatch(code) or VALUE.fullmatch(code) or CALL.match(code):
        for old, new in SWAPS:
            for match in re.finditer(re.escape(old), code):
                yield code[: match.start()] + new + code[match.end() :]
    if CALL.match(code):
        yield code[: len(code) - len(code.lstrip())] + "pass"


def mutants(file: str) -> Iterator[Mutant]:
    """Every change of the file, in the order of its lines."""
    for first, _, code in statements((CHECKOUT / file).read_text()):
        for changed in changes(code):
            yield Mutant(file, first + 1, code, changed)


def switched(code: str, changed: dict[int, str]) -> str:
    """One statement with its mutants beside it; what none of them chooses is as it was."""
    chosen = [f"hourbook_mutant == {number}" for number in changed]
    if shape := HEADER.fullmatch(code) or VALUE.fullmatch(code):
        wrap = "not not ({})" if HEADER.fullmatch(code) else "({})"
        bodies = [shape.re.fullmatch(one)["body"] for one in changed.values()]  # type: ignore[index]
        cases = [f"{wrap.format(b)} if {c} else" for b, c in zip(bodies, chosen, strict=True)]
        body = "\n".join([*cases, wrap.format(shape["body"])])
        return f"{shape['head']}({body}){shape.groupdict().get('tail') or ''}"
    indent = code[: len(code) - len(code.lstrip())]
    shifted = [one.replace("\n", "\n    ") for one in (*changed.values(), code)]
    heads = [f"{indent}{'el' * (i > 0)}if {c}:" for i, c in enumerate(chosen)] + [f"{indent}else:"]
    return "\n".join(f"{head}\n    {one}" for head, one in zip(heads, shifted, strict=True))


def schema(text: str, without: set[int]) -> str:
    """The source with its mutants behind ``choose_mutant``, but those that do not compile."""
    lines, number = text.splitlines(), 0
    for first, count, code in statements(text):
        changed = dict(enumerate(changes(code), number))
        number += len(changed)
        kept = {n: one for n, one in changed.items() if n not in without}
        if kept:
            lines[first : first + count] = [switched(code, kept)] + [""] * (count - 1)
    return "\n".join(lines) + SWITCH


Recording = list[tuple[int, bytes, bytes, Views]]  # stamp, commands, events, and figures after


def figures(machine: Machine, names: Views | None = None) -> Views:
    """Counts, instruments and books; of an engine those figures that the oracle has, ``names``."""
    found = {f"counts {name}": n for name, n in machine.counts().items()}
    for number in range(machine.counts()["instruments"]):
        found |= {f"{number} {name}": n for name, n in machine.instrument(number).items()}
        found[f"{number} book"] = hash(str(machine.book(number)))
    return {name: n for name, n in found.items() if names is None or name in names}


def record(seed: int) -> Recording:
    """What a random market does on the oracle."""
    random, sequence = Random(seed), 1
    weights = MIXED if seed % 2 else {name: random.randint(0, 20) for name in MIXED}
    size, generator, slow = (1, 7, 64, 500)[seed // 2 % 4], Generator(seed, weights), Oracle()
    batch, told = generator.opening(), Recording()
    while sequence <= MARKET_COMMANDS:
        events = slow.apply(batch, sequence, generator.stamp)
        looks = len(told) % max(1, 256 // size) == 0
        told.append((generator.stamp, batch, events, figures(slow) if looks else {}))
        generator.learn(events)
        sequence += len(batch) // COMMAND_BYTES
        batch = generator.batch(size)
    return told


def replay(recording: Recording) -> bool:
    """Whether the engine does the same."""
    engine, sequence = Engine(), 1
    for stamp, batch, events, expected in recording:
        if engine.apply(batch, sequence, stamp) != events:
            return False
        sequence += len(batch) // COMMAND_BYTES
        if expected:
            engine.check()
            if figures(engine, expected) != expected:
                return False
    return True


class Witness:
    """Remembers the first test that failed, and bounds the time of each."""

    failed = ""

    def pytest_runtest_setup(self) -> None:
        signal.setitimer(signal.ITIMER_VIRTUAL, CPU_SECONDS)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid


def meet_tests(recordings: list[Recording], tests: list[str]) -> str:
    """In a child: what first differs or fails; empty if nothing does."""
    signal.signal(signal.SIGVTALRM, signal.SIG_DFL)
    for number, recording in enumerate(recordings):
        signal.setitimer(signal.ITIMER_VIRTUAL, MARKET_CPU_SECONDS)
        try:
            if not replay(recording):
                return f"the random market {number}"
        except Exception as error:  # of the engine's own checks, whatever they are
            return f"the random market {number}: {error}"
    witness = Witness()
    code = pytest.main([*QUIET, *tests], plugins=[witness])
    return witness.failed or (f"pytest: {code}" if code else "")


def verdict(number: int, choose: Callable[[int], None], meet: Callable[[], str]) -> str:
    """What stopped one mutant; empty if it survived."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(1, 2)
        choose(number)
        os.write(write, meet().encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        failed = answer.read()
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGVTALRM:
        return "a loop without an end"
    return failed or ("a crash" if status else "")


def inside(module: str, tests: list[str], numbers: list[int]) -> None:
    """In the copy: judge the mutants of one module, a line of JSON each."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what the tests print is no answer
    choose = import_module(module).choose_mutant
    pytest.main([*QUIET, "--collect-only", "-qq", *tests])  # imported once, for all children
    recordings = [record(seed) for seed in range(MARKETS)]
    meet = partial(meet_tests, recordings, tests)
    if failed := verdict(UNCHANGED, choose, meet):
        raise RuntimeError(f"without any mutant: {failed}")
    for number in numbers:
        answer = number, verdict(number, choose, meet)
        print(json.dumps(answer), file=answers, flush=True)


def build(copy: Path, file: str) -> set[int]:
    """Compile the file's schema; gives the mutants that the compiler refused."""
    path = copy / file
    original, refused = path.read_text(), set[int]()
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    while True:
        path.write_text(schema(original, refused))
        done = subprocess.run(
            command, cwd=copy, env=surroundings(copy), capture_output=True, text=True, check=False
        )
        if not done.returncode:
            path.write_text(original)
            return refused
        lines = path.read_text().splitlines()
        found = re.findall(rf"{re.escape(file)}:(\d+):", done.stderr)
        before = ["\n".join(lines[: int(number)]) for number in found]
        bad = {int(re.findall(r"hourbook_mutant == (\d+)", text)[-1]) for text in before}
        if not bad - refused:
            raise RuntimeError(done.stderr)
        refused |= bad


def surroundings(copy: Path) -> dict[str, str]:
    """The environment in which the copy is built and tested: with the core's checks on."""
    paths = f"{copy}{os.pathsep}{copy / 'tests'}"
    return os.environ | {"HOURBOOK_CHECKED": "1", "HOURBOOK_STALE": "allow", "PYTHONPATH": paths}


def judge(copy: Path, file: str, numbers: range, tests: list[str]) -> Iterator[tuple[int, str]]:
    """Build the file's schema in the copy and run the tests against each mutant."""
    refused = build(copy, file)
    yield from ((number, "the compiler") for number in sorted(refused & set(numbers)))
    module = file.removesuffix(".pyx").replace("/", ".")
    called = [sys.executable, "tests/mutants.py", MODULE, module, ",".join(tests)]
    called += [str(number) for number in numbers if number not in refused]
    with subprocess.Popen(
        called, cwd=copy, env=surroundings(copy), stdout=subprocess.PIPE
    ) as running:
        for line in running.stdout or ():
            number, failed = json.loads(line)
            yield number, failed
    if running.returncode:
        raise RuntimeError(f"{file}: the tests fail without any mutant")


def main() -> int:
    if sys.argv[1:2] == [MODULE]:
        inside(sys.argv[2], sys.argv[3].split(","), [int(number) for number in sys.argv[4:]])
        return 0
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="+", help="relative to the checkout")
    parser.add_argument("--first", type=int, default=0, help="begin with this mutant of each file")
    parser.add_argument("--count", type=int, help="judge so many of each file")
    parser.add_argument("--tests", nargs="+", default=TESTS, help="met by what no market kills")
    parser.add_argument("--json", type=Path, help="append every outcome, a line each")
    options = parser.parse_args()
    judged = survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "hourbook"
        shutil.copytree(CHECKOUT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "build"))
        for file in options.files:
            known = list(mutants(file))
            stop = min(len(known), options.first + (options.count or len(known)))
            for number, failed in judge(copy, file, range(options.first, stop), options.tests):
                outcome = Outcome(known[number], bool(failed), failed)
                judged += 1
                survivors += not failed
                told = failed or "SURVIVED"
                print(f"{number}/{len(known)} {file}:{outcome.mutant.line} {told}", file=sys.stderr)
                if not failed:
                    print(
                        f"{file}:{outcome.mutant.line}\n-{outcome.mutant.before}\n+{outcome.mutant.after}"
                    )
                if options.json:
                    with open(options.json, "a") as out:
                        out.write(json.dumps(asdict(outcome)) + "\n")
    print(f"{judged} mutants, {judged - survivors} killed, {survivors} survived")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
