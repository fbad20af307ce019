"""GPU dev servers from a script, a notebook or a terminal."""
