"""The command that prints what sets of scenarios measure."""

from __future__ import annotations

import sys

import click

from emu.cli_options import own_sources, read_sources


@click.command()
@click.argument("name", required=False)
@click.option("--scenarios", "paths", multiple=True, metavar="PATH", help="These, or a folder's, not the shipped ones.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
@own_sources
def table(name: str | None, paths: tuple[str, ...], as_json: bool, sources: str | None) -> None:
    """Measure the table NAME: run the scenarios that have a [[cell]] of it. Without NAME: what tables there are."""
    import json

    from emu.lab import table as measuring
    from emu.lab.check.regression import collect

    files = collect(paths)
    if name is None:
        if as_json:
            raise click.UsageError("--json needs the NAME of a table")
        click.echo("\n".join(measuring.overview(files)))
        return
    measured = measuring.measure(name, files, read_sources(sources), ("--sources", sources) if sources else ())
    if as_json:
        click.echo(json.dumps(measuring.as_dict(measured), indent=2))
    else:
        click.echo("\n".join(measuring.text_lines(measured)))
    sys.exit(0 if measured.passed else 1)
