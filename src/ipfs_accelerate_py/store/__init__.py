"""The store: one DuckDB file of raw samples, append-only. Launches are spooled as Parquet and ingested by one writer."""
