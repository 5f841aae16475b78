"""The command line. Exit status 0: all as expected; 1: a violation or an unmet expectation; 2: bad input.

Imports are inside the commands: `entry64 image` needs no CPU engine, and a scenario's verdict should not wait for what
it does not use.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import click

from emu.cli_options import Watching, observers, own_sources, read_sources
from emu.cli_output import outputs, text_file
from emu.cli_sweep import add_commands
from emu.cli_table import table
from emu.errors import Entry64Error
from emu.machine.keyboard import handle_interrupts
from emu.process import tune

TOUR = ("syscall-getpid", "timer-interrupt", "demand-paging", "nmi-in-syscall-gap")
"""What `entry64 tour` shows, in this order."""


class _Group(click.Group):
    """Errors that a user can see become one message and status 2."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except Entry64Error as error:
            click.echo(str(error), err=True)
            sys.exit(2)
        except KeyboardInterrupt:
            click.echo("interrupted", err=True)
            sys.exit(128 + signal.SIGINT)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="entry64")
def main() -> None:
    """Run real x86-64 kernel entry code, inject events at exact instructions, check SWAPGS nesting and stacks."""
    handle_interrupts()
    tune()


# --- run --------------------------------------------------------------------------------------------------------------
@main.command()
@click.argument("scenarios", nargs=-1, required=True, metavar="SCENARIO...")
@click.option("--case", metavar="PLACE", help="Of a scenario with `each`: only the case of this boundary.")
@click.option("--trace", "trace_to", metavar="FILE", help="Write every instruction and event to FILE; - is stdout.")
@click.option("--trace-format", type=click.Choice(["text", "jsonl"]), default="text", show_default=True)
@click.option("--registers", is_flag=True, help="Trace the registers before each instruction too.")
@click.option("--trace-boot", is_flag=True, help="Trace the kernel's boot code too, not only what follows it.")
@observers
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
@own_sources
def run(
    scenarios: tuple[str, ...],
    case: str | None,
    trace_to: str | None,
    trace_format: str,
    registers: bool,
    trace_boot: bool,
    strace: bool,
    strace_summary: bool,
    strace_output: str | None,
    ftrace_to: str | None,
    as_json: bool,
    sources: str | None,
) -> None:
    """Run scenario files, or scenarios shipped with entry64 by their bare names, and judge them."""
    import json

    from emu.lab import report as reports
    from emu.lab.rig import Trace, Tracing
    from emu.lab.run import Report, prepare, run_prepared
    from emu.lab.shipped import find_scenario

    watching = Watching(strace, strace_summary, strace_output, ftrace_to)
    own, options = read_sources(sources), ("--sources", sources) if sources else ()
    prepared = [
        (os.fsencode(name).decode(errors="replace"), prepare(find_scenario(name), own_sources=own))
        for name in scenarios
    ]
    if case is not None:
        prepared = [(name, one.case(case)) for name, one in prepared]
    done: list[Report] = []
    several = sum(len(one.cases) for _, one in prepared) > 1
    with outputs({"--trace": trace_to, **watching.files()}, "--json" if as_json else None) as files:

        def watch(name: str, case: str) -> list[Tracing]:
            title = f"{name} {case}".rstrip()
            asked = watching.begin(files, title, several=several)
            if "--trace" in files:
                asked.append(Trace(files["--trace"], trace_format, registers, title, trace_boot))
            return asked

        for name, one in prepared:
            cases = list(run_prepared(one, name, partial(watch, name), options))
            done += cases
            if not as_json:
                click.echo(reports.text_report(cases))
    if as_json:
        click.echo(json.dumps(reports.summary(done), indent=2))
    elif len(prepared) > 1:
        failed = sorted({report.name for report in done if not report.passed})
        click.echo(
            f"{len(prepared)} scenarios, {len(done)} runs: " + (f"FAIL: {', '.join(failed)}" if failed else "PASS")
        )
    sys.exit(0 if all(report.passed for report in done) else 1)


@main.command()
def tour() -> None:
    """Four shipped scenarios, each with its way through the kernel and its verdict: the place to begin."""
    from emu.lab.report import text_report
    from emu.lab.run import prepare, run_prepared
    from emu.lab.shipped import find_scenario

    click.echo(
        "entry64 runs real entry code, assembled from asm/, on an emulated CPU. Each of these four experiments is a\n"
        "small file in scenarios/. Run one by `entry64 run NAME`; see every instruction with `--trace -`.\n"
    )
    passed = True
    for number, name in enumerate(TOUR, 1):
        reports = list(run_prepared(prepare(find_scenario(name)), name))
        passed = passed and all(report.passed for report in reports)
        click.echo(f"{number}. {text_report(reports, explain=True)}")
    sys.exit(0 if passed else 1)


# --- exec -------------------------------------------------------------------------------------------------------------
@main.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--kernel", default="linux-6", show_default=True, help="The kernel image.")
@click.option("--inject", "injections", multiple=True, metavar="EVENT@PLACE", help="May be given several times.")
@click.option("--budget", type=click.IntRange(min=1), default=10_000_000_000, help="Instructions before giving up.")
@click.option(
    "--timer", type=click.IntRange(0, 0xFFFF_FFFF), default=0, help="Instructions between timer interrupts; 0: none."
)
@click.option("--seed", type=click.IntRange(0, (1 << 64) - 1), default=0, help="Of the program's random numbers.")
@click.option("--explain", is_flag=True, help="Explain violations on stderr at full length.")
@click.option("--folder", metavar="FOLDER", help="Open this folder to the program: its working directory, /host.")
@click.option("--writable", is_flag=True, help="Bring the folder to what the program made of it, after the run.")
@observers
@own_sources
@click.argument("program")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def exec_(
    kernel: str,
    injections: tuple[str, ...],
    budget: int,
    timer: int,
    seed: int,
    explain: bool,
    folder: str | None,
    writable: bool,
    strace: bool,
    strace_summary: bool,
    strace_output: str | None,
    ftrace_to: str | None,
    sources: str | None,
    program: str,
    arguments: tuple[str, ...],
) -> None:
    """Run a static ELF PROGRAM, of 64 or 32 bits, as the user process.

    Events: --inject nmi@entry_SYSCALL_64+0x3, nmi@instruction=1234, irq,line=1,hit=2@user:main. The exit status is the
    program's own (128+n if signal n ended it), 125 if an invariant was violated, 1 if an injection did not come about.
    """
    from emu.lab.program import run_program
    from kernel_stubs.hostfs import open_folder

    if writable and folder is None:
        raise click.UsageError("--writable says what becomes of a --folder, and there is none")
    opened = open_folder(Path(folder), writable=writable) if folder is not None else None
    watching = Watching(strace, strace_summary, strace_output, ftrace_to)
    own = read_sources(sources)
    with outputs(watching.files(), "the program's output") as files:
        watch = watching.begin(files, program, several=False)
        status = run_program(kernel, injections, budget, timer, seed, explain, program, arguments, own, watch, opened)
    sys.exit(status)


# --- boot -------------------------------------------------------------------------------------------------------------
@main.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("--entry", metavar="SYMBOL", help="Enter here in 64-bit mode, not by the multiboot header.")
@click.option("--cpus", type=click.IntRange(1, 64), default=1, show_default=True, help="CPUs.")
@click.option("--memory", type=click.IntRange(2, 3072), default=128, show_default=True, help="RAM in MiB.")
@click.option(
    "--budget", type=click.IntRange(min=1), default=1_000_000_000, show_default=True, help="Instructions a CPU."
)
@click.option("--seed", type=click.IntRange(min=0), help="Shuffle the turns of several CPUs by this seed.")
@click.option("--input", "given", metavar="FILE", help="What the serial port receives; - is stdin.")
@click.option("--cpu", "vendor", type=click.Choice(["intel", "amd"]), default="intel", show_default=True)
@click.option("--trace", "trace_to", metavar="FILE", help="Write every instruction and event to FILE; - is stdout.")
@click.argument("image")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def boot(
    entry: str | None,
    cpus: int,
    memory: int,
    budget: int,
    seed: int | None,
    given: str | None,
    vendor: str,
    trace_to: str | None,
    image: str,
    arguments: tuple[str, ...],
) -> None:
    """Boot IMAGE, a bare-metal ELF test image such as those of kvm-unit-tests.

    ARGUMENTS go to its command line, its serial port to stdout, its debug port 0xe9 to stderr. The exit status is the
    guest's, (value << 1) | 1 for what it writes to port 0xf4; 124 if the budget is used up; 126 after a triple fault, a
    crash, or if every CPU halted for good.
    """
    from emu.lab.bare_boot import BootOptions, boot_at_terminal

    with text_file(trace_to) if trace_to is not None else nullcontext() as trace_file:
        options = BootOptions(image, arguments, entry, cpus, memory, budget, seed, _input(given), vendor)
        sys.exit(boot_at_terminal(options, trace_file))


def _input(name: str | None) -> bytes:
    if name is None:
        return b""
    try:
        return sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
    except (OSError, ValueError) as error:
        raise Entry64Error(f"{name}: cannot be read: {getattr(error, 'strerror', error)}") from None


# --- image ------------------------------------------------------------------------------------------------------------
@main.command()
@click.argument("kernel")
@click.option("--symbols", is_flag=True, help="Addresses and names, as nm prints them.")
@click.option("--listing", is_flag=True, help="Every instruction with its source line.")
@click.option("--syscalls", is_flag=True, help="The system calls: ABI, number, name, where they lead.")
@click.option("--elf", "elf_file", metavar="FILE", help="Write the image as an ELF file for objdump, nm and gdb.")
@click.option("--smap/--no-smap", default=True, help="CPU feature that the image is assembled for.")
@click.option("--fsgsbase/--no-fsgsbase", default=True, help="CPU feature that the image is assembled for.")
@own_sources
def image(
    kernel: str,
    symbols: bool,
    listing: bool,
    syscalls: bool,
    elf_file: str | None,
    smap: bool,
    fsgsbase: bool,
    sources: str | None,
) -> None:
    """Assemble the kernel image KERNEL and show it."""
    from emu.lab import listing as listings
    from emu.machine.profile import Profile
    from kernel_stubs.kernel_image import build_image

    if symbols + listing + syscalls + (elf_file is not None) > 1:
        raise click.UsageError("give one of --symbols, --listing, --syscalls and --elf")
    built = build_image(kernel, Profile(smap=smap, fsgsbase=fsgsbase), own_sources=read_sources(sources))
    if elf_file is not None:
        try:
            Path(elf_file).write_bytes(built.to_elf())
        except (OSError, ValueError) as error:
            raise Entry64Error(f"{elf_file}: cannot be written: {getattr(error, 'strerror', error)}") from None
        return
    if syscalls:
        from emu.lab.syscall_table import system_calls

        click.echo("\n".join(system_calls(built)))
        return
    lines = listings.symbols if symbols else listings.listing if listing else listings.overview
    click.echo("\n".join(lines(built)))


add_commands(main)
main.add_command(table)

if __name__ == "__main__":
    main()
