"""busybox in a folder of the host, in both kernels: the shell, find, sort and others print what they print natively."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from programs import outcome

from kernel_stubs.hostfs import open_folder
from kernel_stubs.siginfo import signal_name

BUSYBOX = shutil.which("busybox")
pytestmark = pytest.mark.skipif(not BUSYBOX, reason="busybox is not installed")

SCRIPTS = {
    "find": r"""
        find . | sort; find . -type d | sort; find . -name '*.txt' | sort -r; find . -type f -size +1k
        find numbers words -maxdepth 1 ! -name '*.txt' -o -name many -prune | sort
        find words -type f -exec wc -c {} \; | sort; find . -name '*.txt' | xargs cat | sort | md5sum
        find . -type l -o -name none; find /none; echo $?
    """,
    "sort": r"""
        sort words/a.txt; sort -r words/a.txt; sort -u words/*.txt | tail -5; sort -n numbers/list
        sort numbers/list | head -4
        sort -t: -k2,2n -k1,1 table; sort -t: -k3 -r table | cut -d: -f1; sort -c numbers/list; echo $?
        cat words/*.txt | tr A-Z a-z | tr -cs a-z '\n' | sort | uniq -c | sort -rn -k1,1 -k2 | head -6
        seq 100 | sort -R | sort -n | md5sum
    """,
    "pipes": r"""
        cat numbers/list | sort -n | sed 's/^/<&>/' | tail -3 | tee /dev/null; seq 300 | grep 7 | wc -l
        (echo one; (echo two; exit 3); echo $?) | while read x; do echo "[$x]"; done
        x=1; (x=2; echo $x); echo $x; { echo left; echo right >&2; } 2>/dev/null | cat
        echo a | (read y; echo "$y$y"); yes | head -100 | md5sum; seq 2000 | tail -1
        grep -c . table < /dev/null; echo $?; false | true; echo $?; exec 3< table; read line <&3; echo "$line"
        cat table | cat | cat | wc; tar c words | tar t | sort; echo $(echo $(echo deep | rev) | rev)
    """,
    "loops": r"""
        s=0
        for i in $(seq 60); do [ $((i % 7)) = 0 ] && continue; s=$((s + i * i)); [ $s -gt 40000 ] && break; done
        echo $i $s; i=0
        until [ $i -ge 5 ]; do
            j=0; while [ $j -lt $i ]; do printf '%d%d ' $i $j; j=$((j+1)); done; echo; i=$((i+1))
        done
        fact() { if [ $1 -le 1 ]; then echo 1; else echo $(( $1 * $(fact $(($1 - 1))) )); fi; }; fact 5
        for f in words/*.txt numbers/* none*; do
            case $f in *.txt) echo "text ${f##*/}";; */*) echo "in ${f%/*}";; *) echo "? $f";; esac
        done
        set -- a 'b c' d; for x; do echo "<$x>"; shift; echo $#; done
        while read a b; do echo "$b-$a"; done < numbers/pairs
        while getopts ab:c o -a -b value -c; do echo $o $OPTARG; done
        n=100; while n=$((n-1)); [ $n -gt 0 ]; do :; done; echo $n
    """,
    "jobs": r"""
        (sleep 0.02; echo late) & (exit 5) & wait $!; echo $?; wait; trap 'echo usr1' USR1; kill -USR1 $$; echo after
        sleep 100 & p=$!; kill $p; wait $p; echo $?; trap 'echo end' EXIT
        (trap - EXIT; kill -9 $(exec sh -c 'echo $PPID')); echo $?
        for i in 1 2 3; do (exit $i) & eval "p$i=$!"; done; wait $p2; echo $?; wait $p3; echo $?
        sh -c 'kill -TERM $$'; echo $?
        exit 9
    """,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Some files."""
    for name in ("words", "numbers", "many/deep/er"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "words/a.txt").write_text("pear\nApple\nfig\napple\nPear\n10\n9\n")
    (tmp_path / "words/b.txt").write_text("the quick brown fox\njumps over the lazy dog. The end\n")
    (tmp_path / "numbers/list").write_text("".join(f"{n * 7919 % 1009}\n" for n in range(40)))
    (tmp_path / "numbers/pairs").write_text("1 one\n2 two\n3 three and more\n")
    (tmp_path / "many/deep/er/big").write_bytes(bytes(range(256)) * 20)
    for number in range(12):
        (tmp_path / f"many/{number}").write_text(str(number))
    (tmp_path / "link").symlink_to("words/a.txt")
    (tmp_path / "table").write_text("x:3:u\ny:20:v\nz:3:w\nx:1:a\n")
    return tmp_path


def on_the_host(folder: Path, script: str) -> tuple[str, list[str]]:
    """How the shell ended, and its standard output."""
    host = subprocess.run(
        [str(BUSYBOX), "sh", "-c", script], capture_output=True, check=False, cwd=folder, timeout=60, env={}
    )
    code = host.returncode
    text = f"exited with status {code}" if code >= 0 else f"killed by {signal_name(-code)}"
    return text, host.stdout.decode().splitlines()


ALL = os.environ.get("ENTRY64_MATRIX") == "all"
IN_THE_SUITE = {
    ("loops", "linux-6"), ("jobs", "linux-2.6"),
}  # fmt: skip
CASES = [(name, kernel) for name in SCRIPTS for kernel in ("linux-6", "linux-2.6")]


@pytest.mark.parametrize(("name", "kernel"), [case for case in CASES if ALL or case in IN_THE_SUITE])
def test_the_output_is_that_of_a_native_run(name: str, kernel: str, folder: Path) -> None:
    """`make matrix` runs all of them in both kernels."""
    expected = on_the_host(folder, SCRIPTS[name])
    ours = outcome(Path(str(BUSYBOX)), "sh", "-c", SCRIPTS[name], kernel=kernel, folder=open_folder(folder))
    assert ours == expected
    assert len(expected[1]) >= 10
