"""Ask the oracles again, write their answers down, and print how our machine compares.

`python -m conformance [--offline] [GROUP...]` (with tests/ on the path); --offline uses the answers written down.
"""

from __future__ import annotations

import sys
from collections import Counter

from rich.console import Console
from rich.table import Table

from conformance import corpus, oracles, records
from conformance.cases import GROUPS
from conformance.judge import CaseRuling, FieldRuling, differing


def record(group: str) -> None:
    """Run a group under every oracle and write the answers down."""
    found: dict[str, records.Record] = {}
    for vendor, tested in corpus.images(group):
        answers = {oracle.name: oracles.answers(oracle, tested, vendor) for oracle in oracles.ORACLES}
        for n, case in enumerate(tested.cases):
            found[records.key(case, vendor)] = records.Record(
                records.digest(case), {name: of_all[n] for name, of_all in answers.items()}
            )
    provenance = {o.name: {"version": o.version(), "cpu": o.models} for o in oracles.ORACLES}
    records.save(group, provenance, found)


def _who_is_wrong(ruling: FieldRuling | CaseRuling) -> str:
    if isinstance(ruling, FieldRuling):
        return ruling.wrong
    if ruling.change:
        return "both"
    return "qemu" if ruling.right == "bochs" else "bochs"


def main(arguments: list[str]) -> int:
    offline = "--offline" in arguments
    groups = [name for name in arguments if not name.startswith("-")] or list(GROUPS)
    console = Console()
    missing = [o.command for o in oracles.ORACLES if not o.installed]
    if missing and not offline:
        console.print(f"not installed: {', '.join(missing)} (Debian: bochs bochsbios vgabios qemu-system-x86)")
        return 2
    table = Table("group", "cases", "equal to Bochs", "equal to QEMU", "adjudicated", "ours wrong", "of these listed")
    totals = [0] * 6
    failures: list[str] = []
    everything: list[corpus.Result] = []
    for group in groups:
        if not offline:
            record(group)
        found = corpus.results(group)
        everything += found
        wrong = [r for r in found if r.wrong]
        row = [
            len(found),
            sum(not differing(r.ours, r.oracles["bochs"]) for r in found),
            sum(not differing(r.ours, r.oracles["qemu"]) for r in found),
            sum(bool(r.verdict.rulings) for r in found),
            len(wrong),
            sum(r.known for r in wrong),
        ]
        totals = [a + b for a, b in zip(totals, row, strict=True)]
        table.add_row(group, *map(str, row))
        failures += [r.explain() for r in found if (r.wrong and not r.known) or r.verdict.open]
    ruled = Counter(ruling for r in everything for ruling in r.verdict.rulings)
    reasons = Table("cases", "wrong", "section", "ruling")
    for ruling, count in ruled.most_common():
        reasons.add_row(str(count), _who_is_wrong(ruling), ruling.section, ruling.why)
    console.print(reasons)
    table.add_section()
    table.add_row("all", *map(str, totals))
    for text in failures:
        print(text)
    console.print(table)
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
