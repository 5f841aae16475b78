"""`entry64 report`: one page, with all that the database says, readable in a browser without a network."""

import re
import shutil
import subprocess

import pytest
from click.testing import CliRunner

from emu.cli import main
from emu.lab.page.data import page_data
from emu.lab.page.render import render
from emu.lab.sweep.store import Store
from kernel_stubs.kernel_image import source_files

SCENARIO = """
title = "a title </script><b>of its own</b>"
cpu = { fsgsbase = false }
[user]
asm = '''
_start:
    movl    $SYS_exit_group, %eax
    xorl    %edi, %edi
    syscall
'''
"""
CONTRAST = """<script>
const light = c => { const v = c.match(/[\\d.]+/g).slice(0, 3).map(x => x / 255).map(
  x => x <= 0.03928 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
  return 0.2126 * v[0] + 0.7152 * v[1] + 0.0722 * v[2]; };
const behind = e => { for (; e; e = e.parentElement) { const b = getComputedStyle(e).backgroundColor;
  if (!/^rgba.*, 0\\)$/.test(b) && b !== "transparent") return b; } return "rgb(255, 255, 255)"; };
const ratios = {};
for (const name of ["body", "td.clean", "td.pending", "td.bad", "td.dim", "td.kernel", "td.user", "td.changed", "th"]) {
  const e = document.querySelector(name);
  if (!e) continue;
  const [a, b] = [light(getComputedStyle(e).color), light(behind(e))];
  ratios[name] = ((Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)).toFixed(2);
}
document.title = JSON.stringify(ratios);
</script></body>"""
needs_chromium = pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")


def entry64(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)))


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """A database with the sweep of an image whose paranoid_entry does not swap; its sources; the page."""
    folder = tmp_path_factory.mktemp("page")
    sources = folder / "entry"
    sources.mkdir()
    for name, text in source_files("linux-6").items():
        (sources / name).write_text(text.replace("    swapgs\n    movl    $1, %ebx\n", "    movl    $1, %ebx\n"))
    (folder / "t.toml").write_text(SCENARIO)
    database, page = folder / "r.db", folder / "r.html"
    done = entry64(
        "sweep", folder / "t.toml", "--event", "nmi,irq", "--jobs", "1", "--db", database, "--sources", sources
    )
    assert done.exit_code == 1, done.output
    done = entry64("report", database, "-o", page, "--sources", sources)
    assert done.exit_code == 0, done.output
    return database, sources, page


def opened(page, *options):
    """The document as Chromium has it after its scripts."""
    command = ["chromium", "--headless=new", "--no-sandbox", "--disable-gpu", *options, "--dump-dom", page.as_uri()]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def test_every_case_of_the_database_is_in_a_cell(swept):
    database, sources, _ = swept
    store = Store(database)
    (sweep,) = store.sweeps()
    (data,) = page_data(store, tuple((p.name, p.read_text()) for p in sources.iterdir()))
    cells = [counts for row in data["rows"] for counts in row[8].values()]
    assert sum(map(sum, cells)) == len(list(store.rows(sweep.key)))
    assert len(data["rows"]) == sweep.boundaries
    assert data["complete"]


def test_the_timeline_leads_to_the_violation(swept):
    database, sources, _ = swept
    (data,) = page_data(Store(database), tuple((p.name, p.read_text()) for p in sources.iterdir()))
    (finding,) = data["findings"]
    clock, symbol, _, _, cpl, gs, stack, cr3 = finding["timeline"][finding["last"]]
    assert (symbol.partition("+")[0], cpl, gs, stack, cr3) == ("exc_nmi", 0, "user", "IST2 NMI", "kernel")
    assert [row[0] for row in finding["timeline"]] == sorted(row[0] for row in finding["timeline"])
    assert clock > finding["timeline"][0][0]


def test_the_page_names_no_other_file_and_keeps_its_data_to_itself(swept):
    text = swept[2].read_text()
    assert not re.search(r"https?://|\bsrc=|\bhref=|@import|url\(", text)
    assert "</script><b>" not in text


def test_other_entry_code_than_the_sweeps_is_refused(swept, tmp_path):
    done = entry64("report", swept[0], "-o", tmp_path / "x.html")
    assert done.exit_code == 2
    assert "made with other entry code" in done.output
    assert not (tmp_path / "x.html").exists()


@pytest.mark.parametrize(
    ("content", "message"), [(None, "there is no such file"), (b"no database", "no database"), (b"", "no sweeps in it")]
)
def test_a_file_without_results_is_one_message(content, message, tmp_path):
    if content is not None:
        (tmp_path / "r.db").write_bytes(content)
    done = entry64("report", tmp_path / "r.db", "-o", tmp_path / "x.html")
    assert done.exit_code == 2
    assert message in done.output


def test_a_page_without_findings_renders():
    assert "/*DATA*/" not in render([])


@needs_chromium
def test_a_browser_shows_the_table_and_the_findings(swept):
    text = opened(swept[2])
    count = Store(swept[0]).sweeps()[0].boundaries
    assert f"{count} of {count} boundaries" in text
    assert text.count('<td class="cell bad"') > 10
    assert "a title &lt;/script&gt;&lt;b&gt;of its own&lt;/b&gt;</h2>" in text
    assert "<summary><b>✗ GS nesting</b>" in text


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_is_readable_in_both_colour_schemes(swept, scheme, tmp_path):
    page = tmp_path / "p.html"
    page.write_text(swept[2].read_text().replace("</body>", CONTRAST))
    text = opened(page, f"--blink-settings=preferredColorScheme={int(scheme == 'light')}")
    ratios = dict(re.findall(r'"([\w. ]+)":"([\d.]+)"', re.search(r"<title>(.*?)</title>", text)[1]))
    assert len(ratios) == 9
    assert {name: ratio for name, ratio in ratios.items() if float(ratio) < 4.5} == {}  # WCAG 2.1, 1.4.3


# --- depth 2 ----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def nested(tmp_path_factory):
    """A database with a sweep of two events, the second in the first one's handler, at three boundaries; the page."""
    folder = tmp_path_factory.mktemp("nested")
    (folder / "t.toml").write_text(SCENARIO.replace("cpu = { fsgsbase = false }\n", ""))
    database, page = folder / "r.db", folder / "r.html"
    window = ("--window", "entry_SYSCALL_64..entry_SYSCALL_64:movq")
    events = ("--event", "nmi,mce", "--first", "nmi", "--depth", "2", "--jobs", "1")
    done = entry64("sweep", folder / "t.toml", *events, *window, "--db", database)
    assert done.exit_code == 0, done.output
    assert entry64("report", database, "-o", page).exit_code == 0
    return database, page


def test_nested_events_have_columns_of_their_own(nested):
    store = Store(nested[0])
    (data,) = page_data(store, None)
    assert data["events"] == ["nmi", "nmi \u203a nmi", "nmi \u203a mce"]
    inside = [row for row in data["rows"] if row[8] is not None]
    assert [row[1] for row in inside] == ["entry_SYSCALL_64", "entry_SYSCALL_64+0x3"]
    assert [sum(row[8]["nmi"]) for row in inside] == [1, 1]
    assert all(sum(row[8][pair]) > 40 for row in inside for pair in data["events"][1:])
    assert sum(sum(counts) for row in inside for counts in row[8].values()) == len(
        list(store.rows(store.sweeps()[0].key))
    )


@needs_chromium
def test_a_browser_shows_what_was_not_swept_as_blank(nested):
    text = opened(nested[1])
    assert text.count('<td class="cell clean" title="nmi: 1 clean">✓</td>') == 2
    assert re.search(r'<td class="cell \w+" title="nmi \u203a nmi: [^"]*pending[^"]*">○ \d\d', text)
    assert '<span id="outside">(blank: outside the window)</span>' in text
