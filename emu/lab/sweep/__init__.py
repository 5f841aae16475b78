"""The sweep: every event at every instruction boundary of a scenario, nested if asked; docs/sweep.md explains it.

event.py     one kind of event: where it makes sense, and what may come of it
events.py    all of them, by the names that users give
access.py    faults at what user mode controls: frames, selectors, pages
state.py     when two states are the same: registers and memory apart from dead stack and counters
bench.py     one booted system that goes to any boundary of its run and back
track.py     a run that is walked boundary by boundary
walk.py      the cases of one stretch of the run, and their verdicts
vary.py      values that user mode controls, pair by pair
scene.py     one scenario, ready to run any stretch of its boundaries; and what a sweep is asked to do
store.py     results in SQLite, from which an interrupted sweep goes on
pool.py      worker processes; one that dies costs its case only
cluster.py   the same on a Dask cluster
command.py   the command line's side: the table, the findings
progress.py  how far it is
"""
