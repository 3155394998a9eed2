"""Erasing an entity: taking every trace of its rows out of every store, and keeping them from coming back (ADR 18)."""
