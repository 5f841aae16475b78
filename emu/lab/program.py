"""`entry64 exec`: an ELF program as the user process, with the terminal's input and output."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import sys
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from shlex import join
from typing import Any

from asm import BadElf, Image
from emu.errors import Entry64Error, ProgramError, ScenarioError
from emu.lab.complaints import findings
from emu.lab.injection import Injection, resolve
from emu.lab.places import Places
from emu.lab.report import ending
from emu.lab.rig import Facts, Rig, Tracing
from emu.lab.scenario import Inject
from emu.machine.profile import Profile
from kernel_stubs.boot import BootOptions
from kernel_stubs.exec import load_elf
from kernel_stubs.hostfs import HostFolder
from kernel_stubs.kernel_image import Overrides, build_image

RAM = 256 << 20
MAX_PROGRAM = 128 << 20
VIOLATED, MISSED = 125, 1


class TerminalInput(bytes):
    """Standard input, all of which is read when the program first asks for any; a program that does not never waits."""

    @cached_property
    def _content(self) -> bytes:
        return sys.stdin.buffer.read() if sys.stdin is not None else b""

    def __getitem__(self, key: Any) -> Any:
        return self._content[key]

    def __len__(self) -> int:
        return len(self._content)


def parse_injection(text: str) -> Inject:
    """`nmi@entry_SYSCALL_64+0x3`, `irq,line=1,hit=2@user:main`, `nmi@instruction=1234`."""
    from pydantic import ValidationError

    event, at, place = text.partition("@")
    name, *settings = event.split(",")
    data: dict[str, object] = {"event": name}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise ScenarioError(f"--inject {text!r}: {setting!r} is not KEY=VALUE")
        data[key] = _value(value)
    if at:
        counted = re.fullmatch(r"instruction=(\S+)", place)
        data |= {"instruction": _value(counted[1])} if counted else {"at": place}
    try:
        injection = Inject.model_validate(data)
    except ValidationError as error:
        messages = "; ".join(message.replace("[[inject]]", "event") for _, message in findings(error, Inject))
        raise ScenarioError(f"--inject {text!r}: {messages}; write EVENT[,KEY=VALUE...]@PLACE") from None
    if injection.each is not None:
        raise ScenarioError(f"--inject {text!r}: each makes a run of every boundary, which needs a scenario")
    return injection


def _value(text: str) -> int | str:
    if re.fullmatch(r"-?(0[xX][0-9a-fA-F]{1,16}|[0-9]{1,19})", text):
        return int(text, 16 if "x" in text.lower() else 10)
    return text


def read_program(name: str) -> bytes:
    """The file's bytes; a name without a slash is also looked for in PATH."""
    path = Path(name)
    if "/" not in name and not path.exists():
        found = shutil.which(name)
        path = Path(found) if found else path
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ProgramError(f"{name}: {'a directory' if stat.S_ISDIR(status.st_mode) else 'not a regular file'}")
        if status.st_size > MAX_PROGRAM:
            raise ProgramError(f"{name}: larger than {MAX_PROGRAM >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise ProgramError(f"{name}: cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ProgramError(f"{name!r}: cannot be read: {error}") from None


def run_program(
    kernel: str,
    inject: tuple[str, ...],
    budget: int,
    timer: int,
    seed: int,
    explain: bool,
    name: str,
    arguments: tuple[str, ...],
    own_sources: Overrides | None = None,
    watch: Sequence[Tracing] = (),
    folder: HostFolder | None = None,
) -> int:
    """Run it; the exit status for the shell."""
    specs = [parse_injection(text) for text in inject]
    shown = os.fsencode(name).decode(errors="replace")
    data = read_program(name)
    program = load_elf(data, shown, ia32=True)
    profile = Profile()
    image = build_image(kernel, profile, own_sources=own_sources)
    injections = _resolve(specs, inject, image, data, shown)
    options = BootOptions(
        image=image,
        profile=profile,
        program=program,
        argv=tuple(os.fsencode(text) for text in (name, *arguments)),
        stdin=TerminalInput(),
        seed=seed,
        ram_bytes=RAM,
        timer_period=timer,
        folder=folder,
    )
    flags = [part for text in inject for part in ("--inject", text)]
    flags += ["--folder", str(folder.path)] if folder else []
    command = join(["entry64", "exec", *flags, shown, *arguments])
    try:
        rig = Rig(options)
        facts = rig.run(injections, budget, command, watch=watch, log=False, on_output=_write)
    except BrokenPipeError:
        # Whoever read our output has gone: end as the program would.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    _say(facts, explain)
    if folder is not None and folder.writable:
        _write_back(rig, folder, facts)
    if facts.violations:
        return VIOLATED
    if facts.missed:
        return MISSED
    return 128 + facts.signal if facts.signal is not None else facts.exit_code or 0


def _write_back(rig: Rig, folder: HostFolder, facts: Facts) -> None:
    """A kernel that went wrong may have any files: then the host keeps its own."""
    if facts.violations:
        print(f"entry64: {folder.path} is left as it was", file=sys.stderr)
        return
    try:
        rig.write_back(folder)
    except OSError as error:
        raise Entry64Error(f"{error.filename or folder.path}: cannot be written: {error.strerror}") from None


def _resolve(specs: list[Inject], texts: tuple[str, ...], image: Image, data: bytes, name: str) -> list[Injection]:
    def user_image() -> Image:
        try:
            return Image.from_elf(data)
        except BadElf as error:
            raise ProgramError(f"{name}: {error}") from None

    cases = resolve(specs, lambda index, key: f"--inject {texts[index]!r}", Places(image, user_image), 1)
    return cases[0]


def _write(descriptor: int, data: bytes) -> None:
    stream = sys.stdout if descriptor == 1 else sys.stderr
    stream.buffer.write(data)
    stream.buffer.flush()


def _say(facts: Facts, explain: bool) -> None:
    """The verdict, on one line of stderr; with `explain` the violations at full length before it."""
    parts = [f"{v.invariant}: {v.message} at {v.where}" for v in facts.violations[:1]]
    if len(facts.violations) > 1:
        parts.append(f"{len(facts.violations) - 1} more violations")
    parts += facts.missed
    if facts.unknown_syscalls:
        parts.append("not implemented: " + ", ".join(facts.unknown_syscalls))
    good = not facts.violations and not facts.missed
    details = "".join(f"; {part}" for part in ([*parts, "every invariant held"] if good else parts))
    lines = [line for violation in facts.violations for line in violation.lines()] if explain else []
    lines.append(f"entry64: {'PASS' if good else 'FAIL'}: {ending(facts)}{details}")
    sys.stderr.write("\n".join(lines) + "\n")
    sys.stderr.flush()
