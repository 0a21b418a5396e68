"""The old name of a command."""

from bench.cli import moved

if __name__ == "__main__":
    moved("bench.timing", "bench.speed")
