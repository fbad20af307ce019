"""What people are shown, from records alone: reasons, free GPUs, limits, SSH names, checks.

A view changes nothing. It may ask a decision for a dry run.
"""
