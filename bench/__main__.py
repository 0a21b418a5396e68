"""Runs the suite's commands: `svae-bench run toy_grid` is `python -m bench.run toy_grid`.

    svae-bench run        trains what is not stored yet, then renders its report
    svae-bench report     renders figures, tables and claims of what is stored
    svae-bench show       shows stored trainings, and those that run with --log
    svae-bench results    merges folders of results, scores kept weights
    svae-bench model      samples, encodes and reconstructs by trained models
    svae-bench data       prepares images
    svae-bench check      tells what this machine can do
    svae-bench speed      measures how fast the suite is here

`svae-bench COMMAND --help` tells the options of a command.
"""

import os
import sys
from importlib import import_module
from typing import NoReturn

from bench import process

COMMANDS = {"run": "bench.run", "report": "bench.report", "results": "bench.results"}
COMMANDS["model"] = "bench.model"
COMMANDS |= {name: f"bench.{name}.__main__" for name in ("show", "data", "check", "speed")}


def main() -> NoReturn:
    """Runs the command that the first argument names, and ends the process with its status."""
    process.begin()
    os.environ["PYTHONSAFEPATH"] = "1"  # of workers, which would import what lies in this folder
    name, arguments = (sys.argv[1:2] or [""])[0], sys.argv[2:]
    if name in COMMANDS:
        module = import_module(COMMANDS[name])
        process.command(lambda: module.main(arguments))
    if name in ("-h", "--help"):
        print(__doc__)
        process.end(0)
    print(f"svae-bench: no command {name!r}; allowed: {', '.join(COMMANDS)}", file=sys.stderr)
    process.end(2)


if __name__ == "__main__":
    main()
