"""Mutation testing: break the entry code on purpose, and see that the invariants notice; docs/sweep.md explains it.

operators.py   the ways to break an image: instruction by instruction, and in its sources
suite.py       the regression that each mutant runs: scenarios and short sweeps, with what each executes
run.py         mutants on worker processes, and what becomes of each
command.py     the command line's side
equivalent.toml  mutants that change nothing that anybody could see, each with its reason
"""
