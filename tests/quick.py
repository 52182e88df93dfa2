"""`python -m tests.quick`: the program, whose servers start as quickly as those of tests."""

from cdc.__main__ import main
from tests import brokers, templates

if __name__ == "__main__":
    templates.pytest_configure()
    brokers.pytest_configure()
    main()
