"""The online store: the newest row of every entity, packed (codec) and kept in Redis (store)."""
