"""pytest plugin: scenario files are tests, one for each run and one for the sweep that a file declares.

    pytest --entry64 scenarios/          or, in the configuration:  entry64 = true
    entry64_sources = arch/x86/entry     the image's own sources, relative to the configuration file

A file counts as a scenario if its name ends in .toml and it has a [user] table.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from emu.lab.check.regression import Checked
    from emu.lab.run import Prepared


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options."""
    group = parser.getgroup("entry64")
    group.addoption("--entry64", action="store_true", help="collect entry64's scenario files (*.toml with [user])")
    parser.addini("entry64", "collect entry64's scenario files", type="bool", default=False)
    parser.addini("entry64_sources", "folder of the kernel image's sources, which hold an image.S", default="")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Scenario files, where they are asked for."""
    config = parent.config
    if file_path.suffix != ".toml" or not (config.getoption("--entry64") or config.getini("entry64")):
        return None
    if not _is_scenario(file_path):
        return None
    return ScenarioCollector.from_parent(parent, path=file_path)


def _is_scenario(path: Path) -> bool:
    """A file that is broken counts if it looks like one: its error is a test's."""
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        return "user" in tomllib.loads(text)
    except (ValueError, RecursionError):
        return "[user]" in text


class ScenarioCollector(pytest.File):
    """One scenario file."""

    def collect(self) -> Iterable[pytest.Item]:
        """Its runs and its sweep; one item with the error if the file is wrong."""
        from emu.errors import Entry64Error
        from emu.lab.run import prepare
        from emu.lab.scenario import read_scenario

        try:
            sources = _sources(self.config)
            file = read_scenario(self.path, self._shown())
            prepared = prepare(file, own_sources=sources)
        except Entry64Error as error:
            yield BrokenItem.from_parent(self, name="scenario", message=str(error))
            return
        for case in prepared.cases:
            yield RunItem.from_parent(self, name=case.name or "run", prepared=prepared, case=case.name)
        if file.scenario.sweep is not None and file.scenario.sweep.daily:
            yield SweepItem.from_parent(self, name="sweep", prepared=prepared, sources=sources)

    def _shown(self) -> str:
        """The file's name as messages have it."""
        root = self.config.rootpath
        return str(self.path.relative_to(root) if self.path.is_relative_to(root) else self.path)


def _sources(config: pytest.Config) -> Any:
    """(name, text) of each source, or None; ImageError says what is wrong with the folder."""
    from kernel_stubs.kernel_image import read_sources

    folder = config.getini("entry64_sources")
    if not folder:
        return None
    base = config.inipath.parent if config.inipath else config.rootpath
    return read_sources(base / str(folder))


class ViolationError(Exception):
    """Something is not as expected; the text is the report."""


class _Item(pytest.Item):
    def runtest(self) -> None:
        """Run it; ViolationError with the report."""
        for result in self.results():
            if not result.passed:
                raise ViolationError("\n".join([result.summary, *result.details]))

    def results(self) -> Iterator[Checked]:
        """What was found."""
        raise NotImplementedError

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Our report, without a Python traceback."""
        if isinstance(excinfo.value, ViolationError):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Where the item stands."""
        return self.path, None, f"{self.path.name}::{self.name}"


class BrokenItem(_Item):
    """A file that is no scenario, though it means to be."""

    def __init__(self, *, message: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.message = message

    def runtest(self) -> None:
        """Fail with the message."""
        raise ViolationError(self.message)


class RunItem(_Item):
    """One run."""

    def __init__(self, *, prepared: Prepared, case: str, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.prepared, self.case = prepared, case

    def results(self) -> Iterator[Checked]:
        """Of the run."""
        from emu.lab.check.regression import checked_run
        from emu.lab.run import run_prepared

        one = self.prepared.case(self.case) if self.case else self.prepared
        for report in run_prepared(one, self.prepared.file.name):
            yield checked_run(report, self.prepared)


class SweepItem(_Item):
    """The sweep that a file declares, in this process and one worker."""

    def __init__(self, *, prepared: Prepared, sources: Any, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.prepared, self.sources = prepared, sources

    def results(self) -> Iterator[Checked]:
        """Of the sweep."""
        from emu.lab.check.regression import How, checked_sweep

        spec = self.prepared.file.scenario.sweep
        assert spec is not None
        yield checked_sweep(spec, self.prepared, How(self.sources))
