"""The catalog in the browser: pages for everybody who may read, drawn by the server.

A page shows what the caller may see (catalog/access.py) and asks the database as many queries whatever the catalog's
size. What belongs to ingestion or serving (runs, quarantine, values) is a fragment of theirs, loaded by its address.
"""
