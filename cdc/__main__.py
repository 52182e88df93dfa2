"""`python -m cdc` is `cdc-publisher`."""

from cdc.cli.main import main

main()
