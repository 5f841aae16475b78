"""`python -m fuzz COMMAND` (with tests/ on the path).

record           ask Bochs and QEMU about every seed of the corpus and write their answers down (minutes)
hunt FIRST LAST  compare other seeds with both oracles now, and show where we differ
show SEED...     a stream, its state, our answer and the recorded hash
sandbox FIRST LAST  run seeds in the sandbox: no exception, no hang, no impossible state
"""

from __future__ import annotations

import sys

from capstone import CS_ARCH_X86, CS_MODE_64, CS_OPT_SYNTAX_ATT, Cs
from conformance.judge import differing

from fuzz import corpus, sandbox
from fuzz.streams import stream


def show(seeds: list[int]) -> None:
    decoder = Cs(CS_ARCH_X86, CS_MODE_64)
    decoder.syntax = CS_OPT_SYNTAX_ATT
    for seed, (one, answer) in corpus.our_answers(seeds).items():
        case = one.case
        print(f"stream {seed}: {one.vendor}, CPL {case.cpl}, recorded {corpus.recorded().get(seed)}")
        print("  set", {name: hex(value) for name, value in case.set.items() if isinstance(value, int)})
        print("  gdt", case.gdt, "idt", case.idt, "tss", case.tss, "pages", case.pages)
        for address, _, mnemonic, operands in decoder.disasm_lite(one.code, 0):
            print(f"  {address:#4x} {mnemonic} {operands}")
        print("  ours", answer)


def hunt(first: int, last: int) -> int:
    wrong = apart = 0
    for portion in corpus.chunks(range(first, last)):
        ours = corpus.our_answers(portion)
        for seed, (_, right) in corpus.right_answers(portion).items():
            answer = ours[seed][1]
            apart += right is None
            if right is not None and differing(answer, right):
                wrong += 1
                told = ", ".join(f"{f}: ours {answer.get(f)}, right {right.get(f)}" for f in differing(answer, right))
                print(f"stream {seed} ({stream(seed).vendor}): vector {right['vector']}; {told}")
    print(f"{last - first} streams: {wrong} wrong, {apart} without agreement of the oracles")
    return bool(wrong)


def main(arguments: list[str]) -> int:
    match arguments:
        case ["record"]:
            data = corpus.record()
            count = sum(len(line.split()) for line in data["answers"])
            print(f"{count} streams recorded; the oracles disagree on {len(data['disagree'].split())}")
            return 0
        case ["hunt", first, last]:
            return hunt(int(first), int(last))
        case ["show", *seeds] if seeds:
            show([int(seed) for seed in seeds])
            return 0
        case ["sandbox", first, last]:
            return sandbox.run(range(int(first), int(last)))
    print(__doc__)
    return 2


sys.exit(main(sys.argv[1:]))
