"""The house's own rules: who may import what, sizes, banned words, docs that are true.

Budget: 90 seconds.
"""

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest
import tokens
from conftest import BUDGET, budget, pytest_collection_modifyitems, stale_binaries

from exchange import messages

CHECKOUT = Path(__file__).parents[1]
PACKAGES = ("contracts", "exchange", "clients")
FILE_LINES_MAX, FUNCTION_LINES_MAX = 600, 70
BUDGETS_OF_PAGE: Final = ((100, 1000), (40, 100), (20, 40), (1, 20))  # docs/concepts/testing.md

# room -> (rooms it may import, third-party packages it may import). The longest matching name of a
# module decides; a room may always import itself.
ROOMS: Final[dict[str, tuple[set[str], set[str]]]] = {
    "contracts": (set(), {"msgspec"}),
    "contracts.calendar": ({"contracts"}, {"msgspec", "tzdata"}),  # which zoneinfo imports
    "contracts.grades": ({"contracts"}, {"msgspec", "numpy"}),
    "contracts.goodput": ({"contracts"}, {"msgspec", "numpy", "cryptography"}),
    "contracts.goodput.probe": ({"contracts"}, {"msgspec", "torch"}),
    "contracts.index": ({"contracts"}, {"msgspec", "numpy"}),
    "exchange": (set(), set()),
    "exchange.messages": (set(), {"msgspec"}),
    "exchange.engine": (set(), set()),
    "exchange.journal": ({"exchange.messages"}, {"blake3", "msgspec", "cryptography", "zlib_ng"}),
    "exchange.intake": ({"exchange.messages", "exchange.journal"}, set()),
    "exchange.sequencer": (
        {"exchange.messages", "exchange.engine", "exchange.journal", "exchange.intake"},
        set(),
    ),
    "exchange.clearing": ({"exchange.messages", "contracts"}, {"msgspec"}),
    "exchange.clearing.store": (
        {"exchange.clearing", "exchange.messages", "contracts"},
        {"sqlite_utils"},
    ),
    "exchange.clearing.margin": (
        {"exchange.clearing", "exchange.messages", "contracts"},
        {"msgspec", "numpy"},
    ),
    "exchange.marketdata": ({"exchange.messages"}, {"sortedcontainers"}),
    "exchange.gateway": (
        {"exchange.messages", "contracts", "exchange.marketdata"},
        {"aiohttp", "msgspec", "cryptography", "prometheus_client"},
    ),
    "exchange.history": (
        {
            "exchange.messages",
            "exchange.engine",
            "exchange.journal",
            "exchange.marketdata",
            "contracts",
        },
        {"msgspec"},
    ),
    "exchange.sim": ({"exchange", "contracts", "clients"}, {"msgspec"}),
    "exchange.app": ({"exchange", "contracts", "clients"}, {"msgspec"}),
    "exchange.cli": ({"exchange", "contracts", "clients"}, {"msgspec", "rich", "typer"}),
    "exchange.command": ({"exchange.cli"}, set()),
    "exchange.cli.plot": ({"exchange", "contracts"}, {"matplotlib"}),
    "exchange.cli.export": ({"exchange"}, {"msgspec", "pyarrow"}),
    "clients": (
        {"exchange.messages", "contracts"},
        {"aiohttp", "msgspec", "sortedcontainers", "yarl"},
    ),
    "clients.keys": ({"clients"}, {"msgspec", "cryptography"}),
    "clients.bots.recorder": ({"clients", "exchange.messages"}, {"msgspec", "pyarrow"}),
}
COMPILER: Final = {"cython", "libc", "cpython"}
# What a deterministic core must not even name. `double` and `float` are types, the others modules.
ENGINE_BANNED: Final = {"time", "random", "float", "double", "datetime", "uuid", "os", "logging"}


def sources(*suffixes: str) -> list[Path]:
    found = [p for room in PACKAGES for s in suffixes for p in (CHECKOUT / room).rglob(f"*{s}")]
    return sorted(found)


def module_name(path: Path) -> str:
    parts = path.relative_to(CHECKOUT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    names = module.split(".")
    prefixes = (".".join(names[:n]) for n in range(len(names), 0, -1))
    return next((p for p in prefixes if p in ROOMS), "")


def python_imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import hides the room it names"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


IMPORT_LINE = re.compile(
    r"^\s*(?:from\s+([\w.]+)\s+c?import\s+\(?\s*(\w+|\*)|c?import\s+([\w., ]+))", re.MULTILINE
)


def cython_imports(path: Path) -> Iterator[str]:
    for match in IMPORT_LINE.finditer(path.read_text()):
        if match[1]:
            yield f"{match[1]}.{match[2]}"
        else:
            yield from (part.split(" as ")[0].strip() for part in match[3].split(","))


def foreign_imports(path: Path) -> list[str]:
    """The imports of ``path`` that the table does not allow."""
    module = module_name(path)
    room = room_of(module)
    rooms, third_party = ROOMS[room]
    read = cython_imports if path.suffix in (".pyx", ".pxd") else python_imports
    wrong = []
    for target in read(path):
        top = target.split(".")[0]
        if top in PACKAGES:
            inside = any(target == r or target.startswith(f"{r}.") for r in rooms | {room})
            if not inside or (room == "exchange" and target != "exchange"):
                wrong.append(target)
        elif top in COMPILER:
            if path.suffix == ".py":
                wrong.append(target)
        elif top not in sys.stdlib_module_names and top not in third_party:
            wrong.append(target)
    return wrong


@pytest.mark.parametrize("path", sources(".py", ".pyx", ".pxd", ".pyi"), ids=module_name)
def test_a_room_imports_only_what_the_table_allows(path: Path) -> None:
    assert room_of(module_name(path)), f"{path} stands in no room"
    assert foreign_imports(path) == []


def test_the_table_catches_a_foreign_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = tmp_path / "exchange" / "engine"
    engine.mkdir(parents=True)
    probe = engine / "probe.pyx"
    probe.write_text(
        "from exchange.journal cimport frame\nimport aiohttp\nfrom libc cimport math\n"
    )
    monkeypatch.setattr(f"{__name__}.CHECKOUT", tmp_path)
    assert foreign_imports(probe) == ["exchange.journal.frame", "aiohttp"]


def function_lengths(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


CYTHON_FUNCTION = re.compile(r"^(\s*)(?:cdef|cpdef|def)\s[^=]*?(\w+)\(")


def cython_function_lengths(path: Path) -> Iterator[tuple[str, int]]:
    """A function ends at the last line that is indented deeper than its head."""
    lines = path.read_text().splitlines()
    for start, line in enumerate(lines):
        if not (head := CYTHON_FUNCTION.match(line)):
            continue
        end = start
        for number in range(start + 1, len(lines)):
            text = lines[number]
            if not text.strip() or text.strip().startswith(")"):
                continue
            if len(text) - len(text.lstrip()) <= len(head[1]):
                break
            end = number
        yield head[2], end - start + 1


def everything() -> list[Path]:
    beside = [p for d in ("tests", "benches") for p in sorted((CHECKOUT / d).rglob("*.py"))]
    return sources(".py", ".pyx", ".pxd", ".pyi") + beside


@pytest.mark.parametrize("path", everything(), ids=lambda p: str(p.relative_to(CHECKOUT)))
def test_files_and_functions_keep_their_size(path: Path) -> None:
    lines = path.read_text().splitlines()
    assert len(lines) <= FILE_LINES_MAX
    if path.suffix in (".pyx", ".pxd"):  # ruff judges the others
        assert [n for n, line in enumerate(lines, 1) if len(line) > 100] == []
    measure = cython_function_lengths if path.suffix == ".pyx" else function_lengths
    if path.suffix != ".pxd":
        assert [(n, k) for n, k in measure(path) if k > FUNCTION_LINES_MAX] == []


@pytest.mark.parametrize(
    "path",
    sorted(p for s in ("*.pyx", "*.pxd") for p in (CHECKOUT / "exchange/engine").rglob(s)),
    ids=lambda p: p.name,
)
def test_the_engine_names_no_clock_chance_or_float(path: Path) -> None:
    assert ENGINE_BANNED & set(tokens.names(path.read_text())) == set()


def test_the_token_reader_sees_code_and_not_prose() -> None:
    text = 'cdef float x = y.value  # random words\n"""time"""\n'
    assert set(tokens.names(text)) & ENGINE_BANNED == {"float"}


def fields_that_hide_a_type(text: str) -> list[str]:
    """``Class.name`` where a field's annotation names what the class itself binds."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.ClassDef):
            continue
        fields = [n for n in node.body if isinstance(n, ast.AnnAssign)]
        bound = {n.name for n in node.body if isinstance(n, ast.FunctionDef)}
        bound |= {f.target.id for f in fields if isinstance(f.target, ast.Name)}
        named = (n for f in fields for n in ast.walk(f.annotation) if isinstance(n, ast.Name))
        found += [f"{node.name}.{n.id}" for n in named if n.id in bound]
    return found


@pytest.mark.parametrize("path", sources(".py"), ids=module_name)
def test_no_field_hides_the_type_of_a_field(path: Path) -> None:
    # Since Python 3.14 an annotation is read when it is asked for: then the name is the field.
    assert fields_that_hide_a_type(path.read_text()) == []


def test_a_field_that_hides_its_type_is_seen() -> None:
    text = "class Day:\n    on: date\n    date: date | None\n    other: list[int]\n"
    assert fields_that_hide_a_type(text) == ["Day.date", "Day.date"]


def test_every_module_can_be_imported_alone() -> None:
    modules = [module_name(p) for p in sources(".py") if p.name != "__main__.py"]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.alone"],
        input="\n".join(modules), cwd=CHECKOUT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("reason", messages.Reason, ids=lambda r: r.name)
def test_every_reject_reason_is_documented(reason: messages.Reason) -> None:
    page = (CHECKOUT / "docs/reference/rejects.md").read_text()
    row = re.compile(rf"\|[^\n]*\b{reason.value}\b[^\n]*\b{reason.name}\b|"
                     rf"\|[^\n]*\b{reason.name}\b[^\n]*\b{reason.value}\b")  # fmt: skip
    assert row.search(page)


def tracked() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listing.returncode != 0:
        pytest.skip("not a git checkout")
    return [path for line in listing.stdout.splitlines() if (path := CHECKOUT / line).is_file()]


def test_no_file_names_a_place_on_somebodys_machine() -> None:
    private = re.compile(rb"(?<![\w.])/(?:home|work|Users|root|tmp)/\w")
    named = [path for path in tracked() if private.search(path.read_bytes())]
    assert named == []


MARKDOWN_LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]*)(?:#([^)]*))?\)")
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def pages() -> list[Path]:
    beside = [CHECKOUT / name for name in ("README.md", "THREAT_MODEL.md", "CHANGELOG.md")]
    return [*beside, *sorted((CHECKOUT / "docs").rglob("*.md"))]


def anchors(page: Path) -> set[str]:
    """What a link into a page may name: its headings, as they are read in a browser's address."""
    heads = re.findall(r"^#+ (.*)$", FENCED.sub("", page.read_text()), re.MULTILINE)
    plain = (MARKDOWN_LINK.sub(lambda link: link[0][1 : link[0].index("]")], h) for h in heads)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in plain}


@pytest.mark.parametrize("page", pages(), ids=lambda p: str(p.relative_to(CHECKOUT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in MARKDOWN_LINK.findall(page.read_text()):
        if "://" in target:
            continue
        leads = page.parent / target if target else page
        assert leads.exists(), target
        assert not anchor or anchor in anchors(leads), f"{target}#{anchor}"


def test_a_link_into_a_page_names_a_heading(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# The [way](page.md) `in`\n```\n# not\n```\n[x](#the-way-in)\n")
    assert anchors(page) == {"the-way-in"}
    test_links_lead_somewhere(page)
    page.write_text(page.read_text() + "[y](page.md#not)\n")
    with pytest.raises(AssertionError, match=r"page\.md#not"):
        test_links_lead_somewhere(page)


def test_the_suite_fits_its_bound_as_its_page_says() -> None:
    page = (CHECKOUT / "docs/concepts/testing.md").read_text()
    _, _, table = page.partition("## Run them")
    told = re.findall(r"^\| [a-z0-9 ]+ \| (\d+) \| (\d+) \|", table, re.MULTILINE)[:4]
    budgets = [budget(path) for path in (CHECKOUT / "tests").glob("test_*.py")]
    parts = [[s for s in budgets if least <= s < end] for least, end in BUDGETS_OF_PAGE]
    for (files, seconds), part in zip(told, parts, strict=True):
        assert (int(files), int(seconds)) == pytest.approx((len(part), sum(part)), rel=0.1, abs=2)
    unsaid = 2 * budgets.count(0)
    assert sum(budgets) + unsaid <= 2 * 20 * 60, "two cores, twenty minutes"


@pytest.mark.parametrize("command", [["ruff", "check", "."], ["ruff", "format", "--check", "."]])
def test_ruff_has_nothing_to_say(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_cython_lint_has_nothing_to_say() -> None:
    lint = Path(sys.executable).with_name("cython-lint")
    done = subprocess.run(
        [lint, "exchange"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_mypy_has_nothing_to_say() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mypy"], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_make_alone_builds_and_names_a_python_that_is_not_there() -> None:
    def make(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["make", *arguments], cwd=CHECKOUT, capture_output=True, text=True, check=False
        )

    assert "build_ext --inplace" in make("-n").stdout
    refused = make("PYTHON=no-such-python", "VENV=build/no-such")
    assert refused.returncode and "no-such-python is not there" in refused.stderr


def test_a_budget_is_said_as_it_is_read() -> None:
    """In words it would be read as none, and its file begin last."""
    for path in (CHECKOUT / "tests").glob("test_*.py"):
        said = re.findall(r"(?i)\bbudget: \S+ \S+", path.read_text())
        assert all(BUDGET.match(one) for one in said), f"{path.name}: {said}"


def test_the_longest_files_come_first() -> None:
    files = [
        CHECKOUT / "tests" / f"test_{name}.py" for name in ("house", "checked_build", "access")
    ]
    items: list[Any] = [SimpleNamespace(path=path) for path in files]
    pytest_collection_modifyitems(items)
    assert [item.path for item in items] == [files[1], files[0], files[2]]


def test_a_binary_older_than_its_source_is_refused(tmp_path: Path) -> None:
    room = tmp_path / "exchange" / "engine"
    room.mkdir(parents=True)
    binary, source = room / "core.cpython-311-x86_64-linux-gnu.so", room / "core.pyx"
    for number, path in enumerate((source, room / "core.pxd", binary)):
        path.touch()
        os.utime(path, (number, number))
    assert stale_binaries(tmp_path) == []
    os.utime(room / "core.pxd", (9, 9))
    assert stale_binaries(tmp_path) == [str(binary.relative_to(tmp_path))]


def test_a_binary_whose_source_is_no_longer_compiled_is_refused(tmp_path: Path) -> None:
    room = tmp_path / "exchange"
    room.mkdir()
    binary = room / "intake.cpython-311-x86_64-linux-gnu.so"
    for path in (room / "intake.py", room / "intake.pxd", binary):
        path.touch()
    os.utime(binary, (2**31, 2**31))
    assert stale_binaries(tmp_path) == []
    (room / "intake.pxd").unlink()
    assert stale_binaries(tmp_path) == [str(binary.relative_to(tmp_path))]
