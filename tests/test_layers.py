"""Imports point down the layers: what executes the guest knows no kernel, and neither knows the laboratory."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LAYERS = (
    ("emu.arch", "emu.errors", "emu.record", "emu.process", "emu.events", "emu.tracepoints"),
    ("asm",),
    ("emu.machine",),
    ("kernel_stubs",),
    ("emu.lab",),
    ("emu.cli", "emu.cli_options", "emu.cli_output", "emu.cli_sweep", "emu.cli_table", "emu.pytest_plugin"),
)
ENGINES = {"unicorn": ("emu/machine/", "emu/lab/speed/programs.py"), "keystone": ("asm/",)}
"""Who may import them; the benchmark runs a program on the bare engine."""


def layer(module: str) -> int:
    """Number of a module's layer; -1 if it is not ours."""
    for number, names in enumerate(LAYERS):
        if any(module == name or module.startswith(f"{name}.") for name in names):
            return number
    assert not module.startswith(("emu.", "asm.", "kernel_stubs.")), f"{module} belongs to no layer"
    return -1


def imported(path: Path) -> set[str]:
    """Modules that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            base = node.module
            names |= {f"{base}.{alias.name}" for alias in node.names} if base in ("emu", "asm") else {base}
    return names


def sources() -> list[Path]:
    return [path for folder in ("asm", "emu", "kernel_stubs") for path in sorted((ROOT / folder).rglob("*.py"))]


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def upward(module: str, path: Path) -> list[str]:
    own = layer(module) if module != "emu" else 0
    return [f"{module} imports {name}" for name in sorted(imported(path)) if layer(name) > own]


def test_imports_point_down_the_layers():
    assert [wrong for path in sources() for wrong in upward(module_of(path), path)] == []


def test_an_import_that_points_up_is_noticed_wherever_it_stands(tmp_path):
    (tmp_path / "core.py").write_text(
        "import json\ndef late():\n    from emu.lab.view import View\n    import kernel_stubs.boot\n"
    )
    assert upward("emu.machine.core", tmp_path / "core.py") == [
        "emu.machine.core imports emu.lab.view",
        "emu.machine.core imports kernel_stubs.boot",
    ]
    assert upward("emu.cli", tmp_path / "core.py") == []


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_is_imported_in_its_own_place_only(engine):
    users = {str(p.relative_to(ROOT)) for p in sources() if any(n.partition(".")[0] == engine for n in imported(p))}
    assert users
    assert {path for path in users if not path.startswith(ENGINES[engine])} == set()
