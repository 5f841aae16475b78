"""Decoders that one call alone uses, by the names that the table of calls (`calls`) uses."""

from __future__ import annotations

from emu.lab.observers.strace import names, text
from emu.lab.observers.strace.call import Call, Decode
from emu.lab.observers.strace.pointers import POINTERS


def _pair(call: Call, index: int) -> str:
    """_llseek: the high word comes first."""
    return str(text.signed(call.args[index] << 32 | call.args[index + 1], 64))


def _position(call: Call, index: int) -> str:
    found = None if call.failed else call.values(call.args[index], "q")
    return text.address(call.args[index]) if found is None else f"[{found[0]}]"


def _parent_tid(call: Call, index: int) -> str:
    found = None if call.failed else call.values(call.args[index], "i")
    return text.address(call.args[index]) if found is None else f"[{found[0]}]"


def _user(call: Call, index: int) -> str:
    """An offset in struct user."""
    at = call.args[index]
    registers = names.USER_REGISTERS32 if call.ia32 else names.USER_REGISTERS
    which, rest = divmod(at, call.word)
    if which < len(registers):
        return f"{call.word}*{registers[which]}" + (f"+{rest}" if rest else "")
    debug, rest = divmod(at - names.DEBUG_REGISTERS_AT[call.word], call.word)
    return f"offsetof(struct user, u_debugreg[{debug}])" if 0 <= debug < 8 and not rest else text.number(at)


def _peeked(call: Call, index: int) -> str:
    found = None if call.failed else call.values(call.args[index], "L")
    return text.address(call.args[index]) if found is None else f"[{found[0]:#x}]"


def _filled_string(call: Call, index: int) -> str:
    return text.address(call.args[index]) if call.failed else POINTERS["string"](call, index)


def _prctl_name(call: Call, index: int) -> str:
    return text.choice(call.args[index] & 0xFFFF_FFFF, {15: "PR_SET_NAME", 16: "PR_GET_NAME"}, "PR")


def _interrupted(call: Call, index: int) -> str:
    return f"<... resuming interrupted {call.interrupted} ...>"


_UC_SIGMASK = 296
"""Offset of uc_sigmask in struct ucontext, to whose beginning RSP points at rt_sigreturn."""
_RT_MASK32, _OLD_MASK32, _EXTRA_MASK32 = 248, 80, 712
"""i386: the mask's offset from ESP at rt_sigreturn; those of both halves at sigreturn, which has popped more."""


def _saved_mask(call: Call, index: int) -> str:
    """What sigreturn puts back."""
    if call.name == "sigreturn":
        halves = call.values(call.sp + _OLD_MASK32, "I"), call.values(call.sp + _EXTRA_MASK32, "I")
        mask = halves[0] and halves[1] and halves[0] + halves[1]
        found = mask and (mask[0] | mask[1] << 32,)
    else:
        found = call.values(call.sp + (_RT_MASK32 if call.ia32 else _UC_SIGMASK), "Q")
    return text.address(call.sp) if not found else f"{{mask={text.signal_set(found[0])}}}"


RARE: dict[str, Decode] = {
    "pair2": _pair, "long_long_filled": _position, "parent_tid": _parent_tid, "user": _user, "peeked": _peeked,
    "string_filled": _filled_string, "prctl": _prctl_name, "interrupted": _interrupted, "saved_mask": _saved_mask,
}  # fmt: skip
