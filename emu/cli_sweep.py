"""The commands that run many cases: sweep, mutate, check; and what shows their results."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from emu.cli_options import is_folder, own_sources, read_sources
from emu.errors import Entry64Error


def add_commands(group: click.Group) -> None:
    """Make them commands of `entry64`."""
    for command in (sweep, mutate, check, report, coverage):
        group.add_command(command)


# --- sweep ------------------------------------------------------------------------------------------------------------
@click.command()
@click.argument("scenarios", nargs=-1, required=True, metavar="SCENARIO...")
@click.option(
    "--event", "events", default="nmi", show_default=True, help="nmi,irq,timer,resched,mce,db,pf,access, or all."
)
@click.option("--first", metavar="EVENTS", help="Only these of the events come first; the others are nested only.")
@click.option("--depth", type=click.IntRange(1, 3), default=1, show_default=True, help="How deep events nest.")
@click.option("--window", default="", metavar="PLACE..PLACE", help="Raise the first event between these places only.")
@click.option(
    "--cpu", type=click.IntRange(0, 7), default=0, show_default=True, help="The CPU of the scenario to sweep."
)
@click.option("--jobs", type=click.IntRange(1, 256), help="Worker processes; one for each CPU by default.")
@click.option("--scheduler", metavar="ADDRESS", help="Run on this scheduler's Dask cluster instead of here.")
@click.option("--db", metavar="FILE", help="Keep results in this SQLite file; the same command goes on from there.")
@click.option("--findings", metavar="FOLDER", help="Write a scenario file for each finding into this folder.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
@own_sources
def sweep(
    scenarios: tuple[str, ...],
    events: str,
    first: str | None,
    depth: int,
    window: str,
    cpu: int,
    jobs: int | None,
    scheduler: str | None,
    db: str | None,
    findings: str | None,
    as_json: bool,
    sources: str | None,
) -> None:
    """Raise every event at every instruction boundary of scenarios, and judge what comes of it."""
    from emu.lab.shipped import find_scenario
    from emu.lab.sweep import command
    from emu.lab.sweep.events import events_named
    from emu.lab.sweep.progress import shown_progress
    from emu.lab.sweep.scene import Options
    from emu.lab.sweep.store import Store

    if scheduler is not None and jobs is not None:
        raise Entry64Error("--jobs and --scheduler: a sweep runs in processes here or on a cluster, not both")
    names = events_named(events)
    those = events_named(first, "--first") if first is not None else ()
    for name in those:
        if name not in names:
            raise Entry64Error(f"--first {first}: {name} is not among the events, which are {','.join(names)}")
    options = Options(names, depth, window, read_sources(sources), first=those, cpu=cpu)
    files = [find_scenario(name) for name in scenarios]
    store = Store(None if db is None else Path(db))
    try:
        with command.hired(scheduler) as hire, shown_progress(not as_json) as progress:
            results = command.sweep(files, options, jobs or os.cpu_count() or 1, store, progress, hire=hire)
    except KeyboardInterrupt:
        _interrupted(db)
    finally:
        store.close()
    written = command.write_findings(results, Path(findings)) if findings else []
    if as_json:
        click.echo(command.as_json(results))
    else:
        for result in results:
            click.echo("\n".join(command.text_lines(result)))
        for path in written:
            click.echo(f"reproduce: entry64 run {f'--sources {sources} ' if sources else ''}{path}")
    sys.exit(0 if all(result.clean for result in results) else 1)


def _interrupted(db: str | None) -> NoReturn:
    click.echo("interrupted" + (f"; the same command goes on from {db}" if db else ""), err=True)
    sys.exit(130)


# --- mutate -----------------------------------------------------------------------------------------------------------
@click.command()
@click.argument("kernel", default="linux-6")
@click.option("--scenarios", multiple=True, metavar="SCENARIO", help="Further scenarios for the regression.")
@click.option("--operator", "operators", multiple=True, metavar="PATTERN", help="These operators only, such as nop.")
@click.option("--jobs", type=click.IntRange(1, 256), help="Worker processes; one for each CPU by default.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
@own_sources
def mutate(
    kernel: str,
    scenarios: tuple[str, ...],
    operators: tuple[str, ...],
    jobs: int | None,
    as_json: bool,
    sources: str | None,
) -> None:
    """Break the entry code of KERNEL in every way that is known, and see that the regression notices each."""
    import time

    from emu.lab.mutate import command, run
    from emu.lab.shipped import find_scenario

    own = tuple(find_scenario(name) for name in scenarios)
    last = time.monotonic()

    def progress(done: int, total: int, survived: int) -> None:
        nonlocal last
        if done == total or time.monotonic() - last > 10:
            last = time.monotonic()
            click.echo(f"{done}/{total} mutants, {survived} survived", err=True)

    outcome = run.run(kernel, read_sources(sources), own, jobs or os.cpu_count() or 1, operators, progress)
    click.echo(command.as_json(kernel, outcome) if as_json else "\n".join(command.text_lines(outcome)))
    sys.exit(0 if command.good_enough(outcome) else 1)


# --- check ------------------------------------------------------------------------------------------------------------
@click.command()
@click.argument("paths", nargs=-1, metavar="[PATH...]")
@click.option("--full", is_flag=True, help="Sweep each by every event at every instruction, whatever it declares.")
@click.option(
    "--db", metavar="FILE", help="Keep the sweeps' results in this SQLite file; the same command goes on from there."
)
@click.option("--junit", metavar="FILE", help="Write the results as JUnit XML.")
@click.option("--sarif", metavar="FILE", help="Write what is wrong as SARIF 2.1.0, at the lines of the assembly.")
@click.option("--jobs", type=click.IntRange(1, 256), help="Worker processes of a sweep; one for each CPU by default.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
@own_sources
def check(
    paths: tuple[str, ...],
    full: bool,
    db: str | None,
    junit: str | None,
    sarif: str | None,
    jobs: int | None,
    as_json: bool,
    sources: str | None,
) -> None:
    """The regression: run scenario files, all those of a folder, or all shipped ones, with the sweeps they declare."""
    import dataclasses
    import json
    from itertools import groupby

    from emu.lab.check import junit as junit_format
    from emu.lab.check import output, regression
    from emu.lab.check import sarif as sarif_format
    from emu.lab.sweep.progress import shown_progress
    from emu.lab.sweep.store import Store

    for name in (junit, sarif):
        if name is not None:
            output.check_writable(Path(name))
    if junit is not None and sarif is not None and Path(junit).absolute() == Path(sarif).absolute():
        raise Entry64Error(f"{junit}: --junit and --sarif would write the same file")
    files = regression.collect(paths)
    options = ("--sources", sources) if sources else ()
    results: list[regression.Checked] = []
    store = Store(Path(db)) if db is not None else None
    try:
        with shown_progress(not as_json and sys.stderr.isatty()) as progress:
            how = regression.How(read_sources(sources), options, jobs or os.cpu_count() or 1, progress, full, store)
            for _, group in groupby(regression.check(files, how), key=lambda result: result.scenario):
                of_one = list(group)
                results += of_one
                if not as_json:
                    click.echo("\n".join(regression.text_lines(of_one)))
    except KeyboardInterrupt:
        _interrupted(db)
    finally:
        if store is not None:
            store.close()
    if junit is not None:
        output.write_whole(Path(junit), junit_format.junit(results))
    if sarif is not None:
        folder = Path(sources).as_posix() if is_folder(sources) else ""
        output.write_whole(Path(sarif), sarif_format.sarif(results, folder))
    failed = [result for result in results if not result.passed]
    if as_json:
        table = [dataclasses.asdict(result) | {"passed": result.passed} for result in results]
        click.echo(json.dumps({"passed": not failed, "results": table}, indent=2))
    else:
        sweeps = sum(result.name.startswith("sweep ") for result in results)
        words = f"{len(files)} scenarios, {len(results) - sweeps} runs, {sweeps} sweeps"
        click.echo(f"{words}: " + (f"FAIL, {len(failed)} of {len(results)}" if failed else "PASS"))
    sys.exit(1 if failed else 0)


# --- report -----------------------------------------------------------------------------------------------------------
@click.command()
@click.argument("database", metavar="DB")
@click.option("-o", "--output", default="report.html", show_default=True, metavar="FILE", help="The page to write.")
@own_sources
def report(database: str, output: str, sources: str | None) -> None:
    """Show the sweeps in DB, which `entry64 sweep --db` has written, as one HTML page that needs no network."""
    from emu.lab.check.output import check_writable, write_whole
    from emu.lab.page.data import page_data
    from emu.lab.page.render import render
    from emu.lab.sweep.store import Store

    if not Path(database).is_file():
        raise Entry64Error(f"{database}: there is no such file; `entry64 sweep --db {database}` writes it")
    check_writable(Path(output))
    store = Store(Path(database))
    try:
        data = page_data(store, read_sources(sources))
    finally:
        store.close()
    if not data:
        raise Entry64Error(f"{database}: there are no sweeps in it")
    write_whole(Path(output), render(data))
    click.echo(f"{output}: {len(data)} sweep{'' if len(data) == 1 else 's'}")


# --- coverage ---------------------------------------------------------------------------------------------------------
@click.command()
@click.argument("kernels", nargs=-1, metavar="[KERNEL...]")
@click.option("--scenarios", "paths", multiple=True, metavar="PATH", help="These, or a folder's, not the shipped ones.")
@click.option("--listing", is_flag=True, help="Every instruction, executed (+), listed (=) or missing (-).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
def coverage(kernels: tuple[str, ...], paths: tuple[str, ...], listing: bool, as_json: bool) -> None:
    """Which instructions of the entry code the scenarios execute.

    What they leave out must be listed with a reason in the image's unexecuted.toml, and only that: else the exit status
    is 1.
    """
    import json

    from emu.errors import ImageError
    from emu.lab import coverage as covering
    from emu.lab.check.regression import collect
    from kernel_stubs.kernel_image import kernel_names

    for kernel in kernels:
        if kernel not in kernel_names():
            raise ImageError(f"no kernel image {kernel!r}; there are {', '.join(kernel_names())}")
    found = covering.cover([file for _, file in collect(paths)], kernels or kernel_names())
    if as_json:
        click.echo(json.dumps([covering.as_dict(one) for one in found], indent=2))
    else:
        for one in found:
            click.echo("\n".join(covering.text_lines(one, listing=listing)))
    sys.exit(0 if all(one.complete for one in found) else 1)
