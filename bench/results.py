"""Works on stored results.

    python -m bench.results score      computes what rows lack, from kept weights

Exit status: 0, 1 if something could not be done, 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from bench.cli import Parser
from bench.engine import score


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command's options."""
    p = Parser("python -m bench.results", __doc__)
    parts = p.add_subparsers(required=True, metavar="COMMAND")
    for name, part in {"score": score}.items():
        about = (part.__doc__ or "").split("\n")[0]
        sub = parts.add_parser(name, help=about, description=part.__doc__)
        part.add_arguments(sub)
        sub.set_defaults(command=part.command)
    return p


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    args = parser().parse_args(arguments)
    return args.command(args)


if __name__ == "__main__":
    sys.exit(main())
