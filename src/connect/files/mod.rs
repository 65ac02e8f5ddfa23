//! Files as a source: find them, decode them under a contract, land text as Parquet.
