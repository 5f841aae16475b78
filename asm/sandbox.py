"""Assembling untrusted text: in a child process with limits on time and memory.

The child is forked where the platform can (milliseconds), else it is a fresh interpreter. What comes back is JSON, not
pickle: a child that an attacker took over can at worst return a wrong image.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Mapping
from typing import Any

from asm.build import assemble
from asm.errors import AssemblyError, Diagnostic, Position
from asm.image import Image, Segment, Statement
from asm.source import Library

MEMORY_LIMIT = 512 << 20  # bytes more than the parent has mapped
MAX_ANSWER = 256 << 20
LENGTH_SIZE = 8  # bytes of the length before an answer
REFUSED = Library({}, (), "untrusted text cannot read files")


def assemble_untrusted(
    text: str,
    *,
    name: str,
    base: int,
    first_line: int = 1,
    constants: Mapping[str, int] = {},
    externals: Mapping[str, int] = {},
    timeout: float = 10.0,
) -> Image:
    """`assemble_text` for text from elsewhere: `.include` is refused; a child that takes longer than `timeout` seconds,
    too much memory, or dies gives an AssemblyError."""
    request = {
        "text": text,
        "name": name,
        "base": base,
        "first_line": first_line,
        "constants": dict(constants),
        "externals": dict(externals),
        "timeout": timeout,
    }
    if hasattr(os, "fork"):
        answer = _in_fork(request, timeout)
    else:
        answer = _in_interpreter(request, timeout)
    if not isinstance(answer, str):
        try:
            return _decode(answer)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError):
            answer = "died"  # and left nonsense behind
    raise AssemblyError([Diagnostic(Position(name, first_line), f"the assembler {answer}")])


def _work(request: Mapping[str, Any]) -> bytes:
    """In the child: assemble, and give the answer as JSON."""
    _limit(float(request["timeout"]))
    try:
        image = assemble(
            request["text"],
            request["name"],
            request["base"],
            request["first_line"],
            REFUSED,
            request["constants"],
            request["externals"],
            None,
        )
    except AssemblyError as error:
        return json.dumps({"errors": [_encode_diagnostic(diagnostic) for diagnostic in error.diagnostics]}).encode()
    except MemoryError:
        return b'{"failure": "ran out of memory"}'
    except RecursionError:
        return b'{"failure": "ran out of stack"}'
    return json.dumps(_encode(image)).encode()


def _limit(timeout: float) -> None:
    """Limit the memory and processor time of this process, where the platform can."""
    try:
        import resource
    except ImportError:
        return
    seconds = int(timeout) + 1
    try:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with open("/proc/self/statm", "rb") as statm:
            mapped = int(statm.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + MEMORY_LIMIT, mapped + MEMORY_LIMIT))
    except (OSError, ValueError):
        return  # a limit set from outside may be lower already


def _in_fork(request: Mapping[str, Any], timeout: float) -> Any:
    """The child's answer, or a string that says how it failed. The child only computes and writes to the pipe, and
    leaves by os._exit: no locks, no buffers, no exit handlers of the parent."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking a process with threads: see above
        child = os.fork()
    if child == 0:
        try:
            answer = _work(request)
            view = memoryview(len(answer).to_bytes(LENGTH_SIZE, "little") + answer)
            while view:
                view = view[os.write(writer, view) :]
        finally:
            os._exit(0)
    os.close(writer)
    try:
        return _read(reader, time.monotonic() + timeout)
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)  # it has answered or never will
        os.waitpid(child, 0)


def _read(reader: int, deadline: float) -> Any:
    """A length and that many bytes. Not up to the end of the pipe: a child that another thread forked at the same
    time may hold it open."""
    data = bytearray()
    size = LENGTH_SIZE
    while len(data) < size:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reader], [], [], left)[0]:
            return "took too long"
        part = os.read(reader, 1 << 20)
        if not part:
            return "died"
        data += part
        if len(data) >= LENGTH_SIZE:
            size = LENGTH_SIZE + int.from_bytes(data[:LENGTH_SIZE], "little")
            if size > MAX_ANSWER:
                return "gave too large an answer"
    return _parse(bytes(data[LENGTH_SIZE:]))


def _parse(data: bytes) -> Any:
    try:
        answer = json.loads(data)
    except ValueError:
        return "died"
    if not isinstance(answer, dict):
        return "died"
    return answer.get("failure", answer)


def _in_interpreter(request: Mapping[str, Any], timeout: float) -> Any:
    try:
        run = subprocess.run(
            [sys.executable, "-m", "asm.sandbox"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            input=json.dumps(request).encode(),
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "took too long"
    return _parse(run.stdout)


def _encode(image: Image) -> dict[str, Any]:
    files = {s.position.file: 0 for s in image.statements} | {
        p.file: 0 for s in image.statements for p in s.macro_sites
    }
    numbers = {file: number for number, file in enumerate(files)}
    return {
        "files": list(numbers),
        "segments": [[s.name, s.address, s.data.hex(), s.flags] for s in image.segments],
        "symbols": dict(image.symbols),
        "globals": sorted(image.globals),
        "externals": dict(image.externals),
        "statements": [
            [
                s.address,
                s.size,
                numbers[s.position.file],
                s.position.line,
                [[numbers[p.file], p.line] for p in s.macro_sites],
                s.text,
                s.kind,
            ]
            for s in image.statements
        ],
        "entry": image.entry,
    }


def _encode_diagnostic(diagnostic: Diagnostic) -> list[Any]:
    sites = [[site.file, site.line] for site in diagnostic.macro_sites]
    return [diagnostic.position.file, diagnostic.position.line, diagnostic.message, sites]


def _decode(answer: dict[str, Any]) -> Image:
    if "errors" in answer:
        raise AssemblyError(
            Diagnostic(Position(file, line), message, tuple(Position(*site) for site in sites))
            for file, line, message, sites in answer["errors"]
        )
    files = answer["files"]
    return Image(
        segments=[
            Segment(name, address, bytes.fromhex(data), flags) for name, address, data, flags in answer["segments"]
        ],
        symbols=answer["symbols"],
        globals=answer["globals"],
        externals=answer["externals"],
        statements=[
            Statement(
                address, size, Position(files[file], line), tuple(Position(files[f], n) for f, n in sites), text, kind
            )
            for address, size, file, line, sites, text, kind in answer["statements"]
        ],
        entry=answer["entry"],
    )


if __name__ == "__main__":
    sys.stdout.buffer.write(_work(json.loads(sys.stdin.buffer.read())))
