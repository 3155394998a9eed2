"""The offline store: the full history of every group as a Delta table of Parquet files."""
