"""What README and the tutorial show is what the commands print.

A console block is a fenced block; a line that begins with `$ ` is a command, the lines up to the next one its output.
`python tests/test_documents.py` writes the present output into the documents.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from emu.cli import main

ROOT = Path(__file__).parent.parent
DOCUMENTS = ("README.md", "docs/tutorial.md", "docs/tables.md", "docs/observers.md")
BLOCK = re.compile(r"^```\n(\$ .*?)^```$", re.M | re.S)
PLAIN = re.compile(r"(?:\.venv/bin/)?entry64 ((?:run|table)[\w ./-]*?)( 2>&1 >/dev/null)?")
KERNEL_ADDRESS = re.compile(r"\bffff[89a-f][0-9a-f]{11}\b")  # moves with every change of an image


def settled(output: str) -> str:
    """Output without what an unrelated change of a kernel image moves."""
    return KERNEL_ADDRESS.sub("a kernel address", output)


def commands(text: str) -> list[tuple[str, str]]:
    """(command, the output shown) of every command of a document but make's."""
    found = []
    for block in BLOCK.findall(text):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, _, output = part.partition("\n")
            if not command.startswith("make"):
                found.append((command, output))
    return found


def run(command: str) -> str:
    """Standard output and error together, as a terminal shows them.

    A plain `entry64 run` or `table` is run in this process: images are assembled once, then, not once a command.
    """
    plain = PLAIN.fullmatch(command)
    if plain:
        with contextlib.chdir(ROOT):
            result = CliRunner(env={"COLUMNS": "120"}).invoke(main, plain[1].split())
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return result.stderr if plain[2] else result.output
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "120"}
    command = command.replace(".venv/bin/entry64", "entry64")
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    return done.stdout.decode()


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_document_shows_what_its_commands_print(name):
    shown = commands((ROOT / name).read_text())
    assert len(shown) >= 3
    for command, output in shown:  # in order: later ones use what earlier ones made
        for program in re.findall(r"/usr/bin/(\w+)|^(patch)", command):
            if not shutil.which("".join(program)):
                pytest.skip(f"{''.join(program)} is not installed")
        assert settled(run(command)) == settled(output), command


@pytest.mark.parametrize(
    "path", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda path: path.name
)
def test_links_of_a_document_lead_somewhere(path):
    links = re.findall(r"\]\(([^)#\s]+)", path.read_text())
    assert [link for link in links if "://" not in link and not (path.parent / link).exists()] == []


if __name__ == "__main__":
    for document in DOCUMENTS:
        path = ROOT / document
        text = path.read_text()
        for shown, output in commands(text):
            text = text.replace(f"$ {shown}\n{output}", f"$ {shown}\n{run(shown)}")
        path.write_text(text)
