"""Where the state is kept: every store does the same under one contract suite."""
