"""Mutation testing: break the entry code on purpose, and see that the invariants notice; docs/sweep.md explains it.

mutant.py        a broken image
instructions.py  operators that go by instruction
sources.py       operators that edit a source; doubled.py: what is the same when it is done twice
suite.py         the regression that each mutant runs; check.py: its parts; linux6.py, linux26.py, rare.py: small ones
learn.py         what each check does on the unbroken image, and executes
listed.py        the lists of what need not be killed, beside the images' sources
run.py           mutants on worker processes, and what becomes of each
command.py       the command line's side; record.py: docs/mutation.md
"""
