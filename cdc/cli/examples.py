"""Format the examples at the end of a command's help."""


def examples(*lines: str) -> str:
    """Return an epilog with one command line per line."""
    # After \b click does not rewrap lines.
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])
