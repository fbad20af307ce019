"""How much each person may use: the rules that hold, what counts towards them, and the check.

Nothing here changes a record: operators set rules in ``decisions/limit_rules.py``.
"""
