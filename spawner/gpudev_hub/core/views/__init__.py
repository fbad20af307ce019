"""What is shown to people, from records alone: reasons, free GPUs, limits, names for SSH, checks.

A view changes nothing. It may ask a decision what it would do (a dry run).
"""
