"""`[[cell]]`: one instruction whose outcome is measured, and which cell or row of which table it is."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from emu.lab.scenario.values import Model

Text = Annotated[str, Field(min_length=1)]
NAME = r"^[a-z][a-z0-9-]*$"


class Outcome(Model):
    """`is`: what must be measured (emu.lab.outcome.Outcome, by the same names)."""

    event: Text
    saved: Text | None = None
    rf: Literal["0", "1", "-"] | None = None
    signal: Text | None = None
    then: Text | None = None

    def stated(self) -> dict[str, str]:
        """What is said of it, by name."""
        return {name: value for name in type(self).model_fields if (value := getattr(self, name)) is not None}


class Cell(Model):
    """`[[cell]]`: with a column one cell of a table, which shows the event; without one a row, which shows all."""

    table: Annotated[str, Field(pattern=NAME)]
    row: Text
    column: Text | None = None
    at: Text
    """The instruction, as it is executed for the first time."""
    behind: Text | None = None
    """Where the next instruction is, for one that 64-bit code does not have."""
    is_: Outcome = Field(alias="is")
    manual: Text
    """Where the manuals say so."""

    @model_validator(mode="after")
    def _whole(self) -> Cell:
        stated = self.is_.stated()
        if self.column is not None and len(stated) > 1:
            raise ValueError(f"a cell in a column shows the event only: is must not have {', '.join([*stated][1:])}")
        missing = [name for name in Outcome.model_fields if name not in stated]
        if self.column is None and missing:
            raise ValueError(f"a row shows all that is measured: is needs {', '.join(missing)}")
        return self
