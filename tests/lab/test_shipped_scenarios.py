from __future__ import annotations

import pytest

from emu.cli import TOUR
from emu.lab.places import Places
from emu.lab.run import run_scenario
from emu.lab.scenario import read_scenario
from emu.lab.shipped import FOLDER, find_scenario, shipped_names
from emu.machine.profile import Profile
from kernel_stubs.kernel_image import build_image


@pytest.mark.parametrize("name", shipped_names())
def test_scenario_passes(name: str) -> None:
    reports = run_scenario(find_scenario(name))
    assert [(report.case, report.unmet, report.violations) for report in reports if not report.passed] == []


@pytest.mark.parametrize("name", shipped_names())
def test_scenario_says_what_it_shows_and_how_it_was_checked(name: str) -> None:
    header = (FOLDER / f"{name}.toml").read_text().partition("\n\n")[0]
    assert all(f"# {key}:" in header for key in ("Hypothesis", "Shows", "Checked against"))


def test_titles_differ() -> None:
    titles = [find_scenario(name).scenario.title for name in shipped_names()]
    assert len(set(titles)) == len(titles) >= 14


@pytest.mark.parametrize("name", TOUR)
def test_stations_of_the_tour_explain_themselves(name: str) -> None:
    assert find_scenario(name).scenario.shows.strip()


def test_the_syscall_entry_is_covered_up_to_its_call() -> None:
    reports = run_scenario(find_scenario("nmi-every-syscall-instruction"))
    assert len(reports) > 30
    assert len({report.case for report in reports}) == len(reports)
    assert all(len(report.facts.fired) == 1 for report in reports)


DEPTH2 = sorted((FOLDER / "depth2").glob("*.toml"))
"""What `make check-depth2` sweeps."""


@pytest.mark.parametrize("path", DEPTH2, ids=lambda path: path.stem)
def test_a_sweep_of_depth_2_declares_what_it_is_for(path) -> None:
    spec = read_scenario(path, path.name).scenario.sweep
    assert spec is not None
    assert (spec.depth, spec.first) == (2, ("nmi",))
    assert spec.window
    header = path.read_text().partition("\n\n")[0]
    assert all(f"# {key}:" in header for key in ("Hypothesis", "Shows", "Checked against"))


ENTRIES_AND_EXITS = {
    "linux-6": "entry_SYSCALL_64 entry_SYSCALL_64_safe_stack entry_SYSCALL_64_after_hwframe syscall_return_via_sysret "
    "entry_SYSRETQ_unsafe_stack error_entry error_return swapgs_restore_regs_and_return_to_usermode native_iret "
    "native_irq_return_iret native_irq_return_ldt restore_regs_and_return_to_kernel paranoid_entry paranoid_exit "
    "asm_exc_nmi nested_nmi nested_nmi_out first_nmi repeat_nmi end_repeat_nmi nmi_restore entry_INT80_compat "
    "entry_SYSENTER_compat entry_SYSCALL_compat sysret32_from_system_call",
    "linux-2.6": "system_call ret_from_sys_call sysret_check sysret_unsafe_stack int_ret_from_sys_call error_entry "
    "error_exit ret_from_intr retint_swapgs restore_args iret_label paranoid_exit paranoid_swapgs paranoid_restore "
    "paranoid_userspace nmi debug machine_check ia32_syscall ia32_sysenter_target sysexit_from_sys_call "
    "ia32_cstar_target sysretl_from_sys_call",
}


@pytest.mark.parametrize("kernel", ENTRIES_AND_EXITS)
def test_sweeps_of_depth_2_cover_all_entries_and_exits(kernel) -> None:
    image = build_image(kernel, Profile())
    places = Places(image, lambda: image)
    covered: set[int] = set()
    for scenario in (read_scenario(path, path.name).scenario for path in DEPTH2):
        if scenario.kernel == kernel and scenario.cpu.fsgsbase and scenario.sweep:
            for part in scenario.sweep.window.split(","):
                covered |= {address for one in places.boundaries(part.strip(), "") for address in one.addresses}
    names = ENTRIES_AND_EXITS[kernel].split()
    assert [name for name in names if image.symbols[name] not in covered] == []
