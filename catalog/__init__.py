"""What exists, whose it is and in what state; and the records that ingestion and serving share."""
