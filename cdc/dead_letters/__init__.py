"""Dead letters after the fact: listed, shown, and replayed to their topics."""
