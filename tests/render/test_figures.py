"""What figures share: looks that tell methods apart, rows of panels, legends that fit."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.text import Annotation

from bench.render import figures, front
from bench.render.figures import COLOURS, ORDER, Look, Picture, balanced, key, looks, panels

SIX = ("svae_r", "alice", "alice_sigmoid", "alice_minimax", "hinge", "my_square")
LONG = "a name of 21 letters "


def test_six_methods_have_six_looks_also_those_that_nobody_knows() -> None:
    found = looks(SIX)
    assert [*found] == [*SIX]
    for part in ("colour", "mark"):
        assert len({getattr(look, part) for look in found.values()}) == 6, part
    assert len({str(look.line) for look in found.values()}) > 2
    assert looks(reversed(SIX)) == looks([*SIX, *SIX]) == found


def test_the_paper_s_methods_look_alike_in_every_report() -> None:
    alone, among = looks(["alice"]), looks([*SIX, "vae", "gan"])
    assert alone["alice"] == among["alice"] and among["alice"].colour == COLOURS["alice"]


def test_looks_differ_where_methods_outnumber_colours() -> None:
    many = looks([*ORDER, *(f"method {i}" for i in range(30))]).values()
    assert len({(look.colour, str(look.line), look.mark) for look in many}) == len(many)
    alike = ["".join(letters) for letters in permutations("abc")]  # of one sum of letters
    assert len(alike) == len(figures.OTHER)
    free = looks(alike).values()
    assert len({look.colour for look in free}) == len(free)


def test_a_group_of_panels_begins_a_row_and_no_panel_is_lost() -> None:
    figure, grid = panels(7, 3, 2, 2, groups=[4, 3])
    assert len(grid) == len(figure.axes) == 7
    places = [(round(axes.get_position().y0, 2), axes.get_position().x0) for axes in grid]
    rows = [y for y, _ in places]
    assert rows[0] == rows[2] > rows[3] > rows[4] == rows[6]
    assert places[0][1] == places[3][1] == places[4][1]
    assert [balanced(n, 4) for n in (1, 4, 5, 6, 9)] == [1, 4, 3, 3, 3]


def test_a_legend_has_as_many_columns_as_fit() -> None:
    def drawn(label: str) -> int:
        """The number of columns."""
        figure, grid = panels(1, 1, 6.8, 2)
        key(grid[0], {f"{label}{i}": Look("#000000") for i in range(6)})
        figures.legend(figure, grid, ncols=4)
        figure.draw_without_rendering()
        (legend,) = figure.legends
        assert legend.get_window_extent().width <= figure.bbox.width
        return len({round(text.get_window_extent().x0) for text in legend.get_texts()})

    assert drawn("m") == 4 and 1 <= drawn(2 * LONG) < 4


def test_words_beside_the_points_of_six_paths_cover_none_of_each_other() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"config": "a", "seed": seed, "method": m, "label": LONG + m, "lam": lam}
        | {"mse": np.exp(rng.normal(-lam, 0.05)), "is": rng.normal(lam, 0.05)}
        for m in SIX
        for seed in range(2)
        for lam in (0.0, 1.0, 2.0)
    )
    for baseline in ("", "hinge"):
        figure = front.front(frame, {"is": "score"}, "mse", {"half": 0.5}, "MSE", baseline=baseline)
        figure.draw_without_rendering()
        words = [text for text in figure.axes[0].texts if isinstance(text, Annotation)]
        boxes = [text.get_window_extent().shrunk(0.9, 0.8) for text in words]
        assert len(boxes) >= 6 and not any(a.overlaps(b) for a, b in combinations(boxes, 2))
        whole = looks(SIX)[baseline or front.METHOD].colour
        mine = [text.get_text() for text in words if text.get_color() == whole]
        assert mine == ["0", "1", "2"]


def test_both_files_of_a_figure_with_six_long_names_keep_room_for_their_axes() -> None:
    def draw() -> Figure:
        figure, grid = panels(2, 2, 5, 3)
        key(grid[0], {LONG + method: look for method, look in looks(SIX).items()})
        figures.legend(figure, grid, ncols=4)
        return figure

    picture = Picture("one", draw, "", "")
    for narrow in (False, True):
        with picture._styled(narrow):
            figure = draw()
            figure.draw_without_rendering()
            (legend,) = figure.legends
            assert legend.get_window_extent().x0 >= 0
            for axes in figure.axes:
                assert axes.get_position().width > (0.7 if narrow else 0.35)
                assert not axes.bbox.overlaps(legend.get_window_extent())
