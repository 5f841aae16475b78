"""docs/mutation.md: what runs of `entry64 mutate --json` have found, as tables.

python -m emu.lab.mutate.record build/mutate-linux-6.json build/mutate-linux-2.6.json > docs/mutation.md
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from emu.lab.mutate.command import percent
from emu.lab.mutate.run import Status

_HEAD = """# Mutation testing: the results

Written by `make mutate`, from runs of `entry64 mutate linux-6 --json` and `entry64 mutate linux-2.6 --json`. What the
operators do, what the regression is, and what the columns mean: [sweep.md](sweep.md), "Mutations".
"""


def document(results: Sequence[dict[str, Any]]) -> str:  # Any: as JSON has it
    """The page for these results, one section a kernel."""
    lines = [_HEAD]
    for result in results:
        lines += ["", *_section(result)]
    return "\n".join(lines) + "\n"


def _section(result: dict[str, Any]) -> Iterator[str]:
    mutants = result["mutants"]
    yield f"## {result['kernel']}"
    yield (
        f"{len(mutants):,} mutants. Killed or equivalent: {percent(result['named'])} of the named operators', "
        f"{percent(result['generic'])} of the generic one's (`nop`)."
    )
    yield ""
    names = [status.value for status in Status]
    yield f"| operator | mutants | {' | '.join(names)} |"
    yield "|---" + "|---:" * (len(names) + 1) + "|"
    for operator in [*sorted({one["operator"] for one in mutants}), ""]:
        mine = [one for one in mutants if operator in (one["operator"], "")]
        count = Counter(one["status"] for one in mine)
        cells = " | ".join(f"{count[name]:,}" if count[name] else "" for name in names)
        yield f"| {f'`{operator}`' if operator else 'all'} | {len(mine):,} | {cells} |"
    yield ""
    yield "| killed by | mutants |"
    yield "|---|---:|"
    for by, number in Counter(one["killed_by"] for one in mutants if one["killed_by"]).most_common():
        yield f"| {by} | {number:,} |"
    yield from _reasons(mutants, Status.EQUIVALENT, "Equivalent: they were run, nothing noticed, and nothing could")
    yield from _reasons(mutants, Status.UNEXECUTED, "Unexecuted: they do not count, for nothing goes there")
    for status in (Status.SURVIVED, Status.UNREACHED, Status.LOST):
        left = [one for one in mutants if one["status"] == status.value]
        if left:
            yield ""
            yield f"{status.value.capitalize()}:"
            yield from (f"- `{one['operator']}` {one['place']}" for one in left)


def _reasons(mutants: Sequence[dict[str, Any]], status: Status, title: str) -> Iterator[str]:
    """The reasons, each with its mutants."""
    by: dict[str, list[str]] = {}
    for one in mutants:
        if one["status"] == status.value:
            by.setdefault(one["reason"], []).append(f"`{one['operator']}` {one['place']}")
    if by:
        yield ""
        yield f"{title}:"
        for reason, places in by.items():
            yield f"- {reason}: {'; '.join(dict.fromkeys(places))}"


if __name__ == "__main__":
    sys.stdout.write(document([json.loads(Path(name).read_text()) for name in sys.argv[1:]]))
