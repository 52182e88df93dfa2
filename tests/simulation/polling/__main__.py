"""`python -m tests.simulation.polling`: random worlds of a relay."""

import argparse
import logging
import sys

from tests.simulation.polling.world import worlds


def main(seeds: int, first: int) -> int:
    """Run worlds; print what was violated, and return how many were."""
    logging.disable(logging.CRITICAL)
    violations = 0
    for name, violation in worlds(range(first, first + seeds)):
        if violation:
            violations += 1
            print(f"VIOLATION {name}: {violation}", flush=True)
    print(f"relays: {seeds:,} worlds, {violations} violations")
    return violations


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.polling", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="random worlds")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    options = parser.parse_args()
    sys.exit(1 if main(options.seeds, options.first) else 0)
