"""Imports run one way, and importing dlcore is quiet and cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dlcore

ROOT = Path(dlcore.__file__).parent
LAYERS = [
    {"errors"},
    {"settings", "dtypes", "indexing", "random", "recording", "signature"},
    {"op"},
    {"tensor", "autograd", "dispatch"},
    {"creation"},
    {"testing", "profile", "debug", "graph", "sim"},
    {"ops"},
    {"backends"},
    {"custom"},
    {"nn", "optim"},
    {"io", "data", "distributed"},
    {"train"},
    {"doctor"},
    {"__main__"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
MODULES = sorted(p for p in ROOT.rglob("*.py") if p != ROOT / "__init__.py")


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def type_checking_only(tree: ast.AST) -> set[ast.AST]:
    guards = [n for n in ast.walk(tree) if isinstance(n, ast.If) and getattr(n.test, "id", "") == "TYPE_CHECKING"]
    return {inner for guard in guards for inner in ast.walk(guard)}


def imports_of(path: Path, *, everywhere: bool) -> set[str]:
    """Imported names: at module level, or everywhere."""
    tree = ast.parse(path.read_text())
    skipped = type_checking_only(tree)
    nodes = ast.walk(tree) if everywhere else ast.iter_child_nodes(tree)
    return {name for node in nodes if node not in skipped for name in imported(node)}


def test_every_module_has_a_layer():
    names = {p.relative_to(ROOT).parts[0].removesuffix(".py") for p in MODULES}
    assert names <= RANK.keys()


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_module_imports_only_its_layer_and_those_below(path):
    own = RANK[path.relative_to(ROOT).parts[0].removesuffix(".py")]
    for name in imports_of(path, everywhere=False):
        parts = name.split(".")
        if parts[0] == "dlcore" and len(parts) > 1 and parts[1] in RANK:
            assert RANK[parts[1]] <= own, f"{path.name} imports {name} from a higher layer"


@pytest.mark.parametrize("path", sorted((ROOT / "ops").glob("*.py")), ids=lambda p: p.name)
def test_ops_never_import_a_backend(path):
    forbidden = ("dlcore.backends", "dlcore._C", "cupy", "numba")
    assert not [n for n in imports_of(path, everywhere=True) if n.startswith(forbidden)]


def test_import_is_quiet_and_loads_nothing_heavy():
    heavy = "['cupy', 'numba', 'torch', 'ml_dtypes', 'matplotlib', 'tqdm', 'sklearn', 'dlcore._C', 'safetensors']"
    code = f"import sys, dlcore; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
