"""`python -m bench [ROW ...] [--runs 5]`: prints one JSON line per row."""

import argparse
import json
import sys
import time

import trio

from bench.rows import ROWS


def main() -> int:
    """Measure what was asked for, or all."""
    parser = argparse.ArgumentParser(prog="./run bench")
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"of {', '.join(ROWS)}; all unless said")
    parser.add_argument("--runs", type=int, default=5, help="how often each is measured; the median counts")
    options = parser.parse_args()
    unknown = [name for name in options.rows if name not in ROWS]
    if unknown:
        parser.error(f"there is no row {unknown[0]}")
    for name in options.rows or ROWS:
        for row in trio.run(ROWS[name], options.runs):
            sys.stdout.write(json.dumps(row.fields()) + "\n")
            sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
