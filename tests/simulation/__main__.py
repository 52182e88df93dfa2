"""The command line of the simulation."""

import argparse
import sys

from tests.simulation import campaign

parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
parser.add_argument("--seeds", type=int, default=20_000, help="random worlds")
parser.add_argument("--crashes", type=int, default=100_000, help="crash schedules: all single ones, then pairs")
parser.add_argument("--first", type=int, default=0, help="the first seed")
parser.add_argument("--seed", type=int, help="show the world of this seed, and nothing else")
parser.add_argument("--no-tapes", action="store_true", help="do not keep what fails in tests/tapes")

if __name__ == "__main__":
    options = parser.parse_args()
    if options.seed is not None:
        sys.exit(campaign.replay(options.seed))
    sys.exit(campaign.main(options.seeds, options.crashes, options.first, keep=not options.no_tapes))
