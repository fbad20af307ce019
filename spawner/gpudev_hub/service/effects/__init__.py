"""What follows from commits: the Hub starts and stops servers, and is asked again until it has.

Every effect names (reservation, attempt) and looks at the committed state before each try, so an unwanted
effect ends by itself. Nothing is stored: after a restart the same effects are derived from the state.
"""
