"""What a study's package says of its results; `bench.report` puts it into files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from bench.render import compare as against
from bench.render.figures import Picture
from bench.render.tables import Table


@dataclass(frozen=True)
class Page:
    """Tables by name (`claims` and `summary` are shown on the terminal), pictures and notes."""

    frame: pd.DataFrame  # one row a training
    tables: dict[str, Table]
    pictures: Sequence[Picture]
    notes: Sequence[str]
    missing: int  # trainings that a complete study would have beside these
    shown: set[str]  # ids of the trainings whose samples are in the pictures

    @property
    def agrees(self) -> bool:
        """With the results it was compared with, if it was."""
        return "against" not in self.tables or against.agrees(self.tables["against"])


def damage(frame: pd.DataFrame) -> list[str]:
    """A note on the files that could not be read, `attrs["bad"]` of a frame, if there are any."""
    bad = frame.attrs["bad"]
    return [f"{bad} damaged file(s) were left out; bench.run sets them aside."] if bad else []
