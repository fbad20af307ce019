"""What follows from commits: the Hub starts and stops servers, and is asked again until it has.

Every effect names (reservation, attempt) and looks at the committed state before each try: one that is no
longer wanted ends by itself. Nothing is kept: after a restart the same effects are derived from the state.
"""
