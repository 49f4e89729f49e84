"""The shape of the house, as tests: the floors, the triples of a filter, and the pages that tell of them."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = sorted(path for folder in ("gateway", "filters", "appliance") for path in (ROOT / folder).rglob("*.py"))
FILTERS = sorted(path.stem for path in (ROOT / "filters").glob("[a-z]*.py"))
STAGE_POLICIES = {
    *("edge", "logins", "content", "score", "routes", "queue", "relay", "quarantine", "pop3", "reports", "signing"),
}

FLOORS = (
    {"model", "outlet"},
    {"toml", "events", "failpoints", "idn", "peers", "dmarc"},
    {"config", "proxy"},
    {"stages", "tls"},
    {"dns", "state", "routes", "door", "backoff", "dkim"},
    {"store"},
    {"accounts"},
    {"pipeline"},
    {"smtp", "delivery", "pop3"},
)
"""The rooms of gateway/, lowest floor first. What is not named here is the roof: it may import everything."""

SHARED_WITH_FILTERS = ("gateway.model", "gateway.dmarc.")
"""What filters know of the gateway: the nouns, and how DMARC reads the DNS, which reports have to read alike."""


def imports(path: Path) -> Iterator[str]:
    """Every module of ours that *path* imports, dotted."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def room(module: str) -> str:
    """The room of gateway/ that a dotted name lies in, or "" where it lies elsewhere."""
    words = module.split(".")
    return words[1] if words[0] == "gateway" and len(words) > 1 else ""


def floor_of(name: str) -> int:
    return next((number for number, rooms in enumerate(FLOORS) if name in rooms), len(FLOORS))


def own_room(path: Path) -> str:
    return path.relative_to(ROOT / "gateway").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", [p for p in MODULES if p.is_relative_to(ROOT / "gateway")], ids=str)
def test_imports_run_one_way(path):
    here = own_room(path)
    for module in imports(path):
        there = room(module)
        if there and there != here:
            higher = floor_of(there) < floor_of(here) or floor_of(here) == len(FLOORS)
            assert higher, f"{path.name} is on floor {floor_of(here)} and imports {module}"


def test_every_room_of_the_floors_is_there():
    for rooms in FLOORS:
        for name in rooms:
            assert (ROOT / "gateway" / name).is_dir() or (ROOT / "gateway" / f"{name}.py").is_file(), name


def test_the_nouns_are_made_of_the_standard_library_alone():
    for module in imports(ROOT / "gateway/model.py"):
        assert module.split(".")[0] in sys.stdlib_module_names, module


@pytest.mark.parametrize("name", FILTERS)
def test_filters_know_only_the_model_and_libraries(name):
    ours = {m for m in imports(ROOT / f"filters/{name}.py") if m.split(".")[0] in {"gateway", "filters", "appliance"}}
    assert all(m.startswith((*SHARED_WITH_FILTERS, "filters._")) for m in ours), ours


def test_what_a_filter_keeps_in_a_folder_of_its_own_knows_no_more_than_the_filter():
    for path in (ROOT / "filters").glob("_[a-z]*/*.py"):
        ours = {m for m in imports(path) if m.split(".")[0] in {"gateway", "filters", "appliance"}}
        known = (*SHARED_WITH_FILTERS, "filters._ciphers.", f"filters.{path.parent.name}.")
        assert all(m.startswith(known) for m in ours), (path, ours)


def test_what_filters_share_with_the_gateway_knows_the_nouns_alone():
    for path in (ROOT / "gateway/dmarc").glob("*.py"):
        assert all(module.startswith(SHARED_WITH_FILTERS) for module in imports(path) if room(module)), path


@pytest.mark.parametrize("name", FILTERS)
def test_filters_find_and_never_decide(name):
    assert not any(m.endswith(".Action") for m in imports(ROOT / f"filters/{name}.py"))


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_is_three_files_with_one_stem(name):
    assert (ROOT / f"policies/{name}.toml").is_file()
    assert (ROOT / f"tests/filters/test_{name}.py").is_file()
    assert "?" in ast.get_docstring(ast.parse((ROOT / f"filters/{name}.py").read_text())).split("\n")[0]


def test_every_policy_is_of_a_filter_or_of_a_stage():
    assert {path.stem for path in (ROOT / "policies").glob("*.toml")} == set(FILTERS) | STAGE_POLICIES


def test_the_gateway_never_imports_a_filter_by_statement():
    for path in MODULES:
        if path.is_relative_to(ROOT / "gateway"):
            assert not any(module.split(".")[0] in {"filters", "appliance"} for module in imports(path)), path


def test_appliance_knows_configuration_and_store_alone():
    for path in MODULES:
        if path.is_relative_to(ROOT / "appliance"):
            rooms = {room(module) for module in imports(path)} - {""}
            assert rooms <= {"config", "store", "toml", "model"}, path


def test_protocols_are_written_without_io():
    for name in ("smtp/data.py", "smtp/address.py", "pop3/dialog.py", "pipeline/mime.py"):
        modules = {module.split(".")[0] for module in imports(ROOT / "gateway" / name)}
        assert not modules & {"asyncio", "socket", "ssl", "sqlalchemy"}, name


def test_only_the_store_speaks_sql_statements():
    for path in MODULES:
        if not path.is_relative_to(ROOT / "gateway/store") and path != ROOT / "gateway/accounts.py":
            statements = {m for m in imports(path) if m.startswith("sqlalchemy") and not m.endswith(".Connection")}
            assert not statements, (path, statements)


def test_only_events_writes_the_log():
    for path in MODULES:
        if path != ROOT / "gateway/events.py":
            assert "logging" not in {module.split(".")[0] for module in imports(path)} or path.parts[-2] == "smtp", path


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_every_module_opens_with_what_it_is_and_the_rule_it_keeps(path):
    text = ast.get_docstring(ast.parse(path.read_text()))
    assert text, "no docstring"
    assert len(text.splitlines()) <= 12, "a docstring is a door plate"


def test_importing_a_module_does_nothing():
    """Only definitions, and values made of them, stand at the top of a module."""
    allowed = (
        ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign,
        ast.If, ast.Expr, ast.TypeAlias if hasattr(ast, "TypeAlias") else ast.Assign,
    )  # fmt: skip
    for path in MODULES:
        if path.name in {"env.py", "schema.py"} or path == ROOT / "gateway/cli/__init__.py":
            continue  # alembic runs the first as a script; the others put their verbs and indexes together
        for node in ast.parse(path.read_text()).body:
            assert isinstance(node, allowed), (path, node.lineno)
            if isinstance(node, ast.Expr):
                assert isinstance(node.value, ast.Constant), (path, node.lineno)


@pytest.mark.parametrize("page", ["flow", "states", "security"])
def test_the_pages_beside_the_code_are_short(page):
    assert len((ROOT / f"docs/{page}.md").read_text().splitlines()) <= 120


def test_the_first_page_names_every_policy():
    text = (ROOT / "README.md").read_text()
    assert [stem for stem in (*FILTERS, *sorted(STAGE_POLICIES)) if f"`{stem}`" not in text] == []


def test_the_page_of_the_way_of_a_mail_names_modules_that_exist():
    for name in re.findall(r"`(\w+\.py)`", (ROOT / "docs/flow.md").read_text()):
        assert list((ROOT / "gateway").rglob(name)), name


def test_the_page_of_the_way_of_a_mail_names_every_module_under_the_heading_of_its_folder():
    """Of the verbs (cli/) and of the migrations it has the folder alone."""
    text = (ROOT / "docs/flow.md").read_text()
    rooms = re.split(r"^## .*?`gateway/(\w+)/`.*$", text, flags=re.MULTILINE)
    sections = {folder: section.split("\n## ")[0] for folder, section in zip(rooms[1::2], rooms[2::2], strict=True)}
    for path in (ROOT / "gateway").rglob("*.py"):
        if path.name != "__init__.py" and not {"cli", "migrations"} & set(path.parts):
            assert f"`{path.name}`" in sections.get(path.parent.name, text), path


def test_pyproject_names_the_packages_that_the_product_is_built_on():
    dependencies = " ".join(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])
    for name in ("aiosmtpd", "dnspython", "pyclamd", "dkimpy", "pyspf"):
        assert name in dependencies
