"""Files that a run is given, and a folder of the host: what of it the guest sees, and that nothing else is in reach."""

import os
import shutil
import subprocess

import pytest
from booted import start

from emu.errors import Entry64Error
from kernel_stubs.context import InputFile
from kernel_stubs.elf import load_elf
from kernel_stubs.hostfs import open_folder, write_back

BUSYBOX = shutil.which("busybox")
pytestmark = pytest.mark.skipif(not BUSYBOX, reason="busybox is not installed")
LIMIT = 20_000_000


def shell(script, **options):
    with open(BUSYBOX, "rb") as file:
        program = load_elf(file.read(), "busybox")
    it = start(program, argv=(b"busybox", b"sh", b"-c", script.encode()), **options)
    it.system.machine.observers.clear()
    return it, it.run(LIMIT)


@pytest.fixture
def folder(tmp_path):
    """A folder with a way out, and what lies beyond it."""
    inside = tmp_path / "inside"
    (inside / "sub").mkdir(parents=True)
    (inside / "file").write_text("content\n")
    (inside / "sub" / "deep").write_text("deeper\n")
    (tmp_path / "secret").write_text("secret\n")
    (inside / "relative").symlink_to("../secret")
    (inside / "absolute").symlink_to(tmp_path / "secret")
    (inside / "folder").symlink_to(tmp_path)
    (inside / "good").symlink_to("sub/deep")
    os.mkfifo(inside / "fifo")
    return inside


SCRIPTS = [
    "echo hello | cat",
    "for i in 3 1 2; do echo $i; done | sort",
    "(echo a; (echo b; echo c) | sort -r) | wc -l",
    'x=$(echo inner; exit 3); echo "$x $?"',
    "i=0; while [ $i -lt 20 ]; do i=$((i+1)); done; echo $i",
    'f() { echo "f $1"; return 4; }; f x; echo $?',
    "seq 1 200 | sed -n 's/^1/x/p' | sort -r | head -3",
    "echo one > f; echo two >> f; cat f; wc -c < f; rm f; ls",
    "mkdir -p a/b; touch a/b/c a/d; find a | sort; rm -r a",
    "printf 'b 2\\na 1\\nc 3\\n' | sort -k2 -n -r | awk '{ print $1 }'",
    "cat /no/such/file; echo $?",
    "yes | head -2; echo ${PIPESTATUS:-none}",
    "trap 'echo bye' EXIT; echo hi",
    "sleep 0.01 & wait; echo waited",
    "kill -9 $$",
    "exec seq 3",
    "cat <<END\nhere $((1 + 1))\nEND",
    "sh -c 'echo $0 $1' zero one",
    "echo a b c | tr ' ' '\\n' | while read x; do echo \"<$x>\"; done",
    "set -e; false; echo never",
]


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("cpus", [1, 2])
def test_the_shell_prints_what_it_prints_on_the_host(script, cpus, tmp_path):
    it, end = shell(f"cd /tmp; {script}", cpus=cpus) if cpus == 1 else shell_on(cpus, f"cd /tmp; {script}")
    host = subprocess.run(
        ["busybox", "sh", "-c", script], executable=BUSYBOX, capture_output=True, check=False, cwd=tmp_path, timeout=20
    )
    assert it.stdout == host.stdout
    expected = f"exited with status {host.returncode}" if host.returncode >= 0 else "killed by SIGKILL"
    assert end.text == expected


def shell_on(cpus, script):
    with open(BUSYBOX, "rb") as file:
        program = load_elf(file.read(), "busybox")
    it = start(program, argv=(b"busybox", b"sh", b"-c", script.encode()), cpus=cpus)
    it.system.machine.observers.clear()
    return it, it.system.machine.advance(LIMIT)[1]


def test_given_files_are_there():
    files = (InputFile("/etc/motd", b"welcome\n"), InputFile("/bin/tool", b"#!/busybox sh\necho tool $1\n", 0o755))
    it, end = shell("cat /etc/motd; /bin/tool x; /etc/motd; echo $?", files=files)
    assert it.stdout == b"welcome\ntool x\n126\n"
    assert end.text == "exited with status 0"


def test_the_guest_sees_the_folder_read_only(folder):
    it, _ = shell(
        "cd /host; find . | sort; cat file good;"
        "echo x > file; echo x > new; rm file; mkdir d; mv file /tmp; ls | wc -l",
        folder=open_folder(folder),
    )
    expected = [".", "absolute", "file", "folder", "good", "relative", "sub", "sub/deep"]
    lines = it.stdout.decode().splitlines()
    assert lines[:8] == [f"./{name}" if name != "." else name for name in expected]
    assert lines[8:] == ["content", "deeper", "6"]
    assert (folder / "file").read_text() == "content\n"


@pytest.mark.parametrize(
    "path",
    ["relative", "absolute", "folder/secret", "../secret", "sub/../../secret", "/host/../../../secret", "fifo"],
)
def test_nothing_outside_the_folder_is_in_reach(folder, path):
    it, _ = shell(f"cd /host; cat {path}; echo $?", folder=open_folder(folder))
    assert it.stdout == b"1\n"


def test_changes_go_back_only_if_that_is_allowed(folder):
    script = "cd /host; echo more >> file; mkdir d; echo new > d/n; rm sub/deep; echo x > relative; echo y > folder/z"
    opened = open_folder(folder, writable=True)
    it, _ = shell(script, folder=opened)
    assert (folder / "file").read_text() == "content\n"
    assert sorted(write_back(it.system.kernel, opened)) == ["-sub/deep", "d/n", "file"]
    assert (folder / "file").read_text() == "content\nmore\n"
    assert (folder / "d" / "n").read_text() == "new\n"
    assert (folder.parent / "secret").read_text() == "secret\n"
    assert not (folder.parent / "z").exists()
    assert write_back(it.system.kernel, open_folder(folder)) == []


def test_links_that_appear_in_the_folder_meanwhile_lead_nowhere(folder):
    opened = open_folder(folder, writable=True)
    it, _ = shell("cd /host; echo changed > sub/deep; echo changed > file", folder=opened)
    shutil.rmtree(folder / "sub")
    (folder / "sub").symlink_to(folder.parent)
    (folder / "file").unlink()
    (folder / "file").symlink_to(folder.parent / "secret")
    assert write_back(it.system.kernel, opened) == []
    assert (folder.parent / "secret").read_text() == "secret\n"
    assert not (folder.parent / "deep").exists()


def test_what_is_no_folder_is_refused(tmp_path):
    with pytest.raises(Entry64Error, match="not a folder"):
        open_folder(tmp_path / "none")
