"""`python -m tests.simulation.recovery`: random worlds of `recover`; `make simulate` runs them too."""

import argparse
import sys

from tests.simulation.recovery.campaign import main

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.recovery", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="random worlds")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    options = parser.parse_args()
    sys.exit(1 if main(options.seeds, options.first) else 0)
