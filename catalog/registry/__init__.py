"""The registry: what the catalog holds, listed, shown and changed over HTTP.

A change is a definitions document of one thing, applied by the functions that `manage.py apply` uses (edits), with the
version that it is a change of compared in the same transaction.
"""
