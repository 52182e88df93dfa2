"""From records to the confirmed LSN: the session, its loop, and what is remembered between sessions."""
