//! Runs canonical plans. Knows no connector and no warehouse.
