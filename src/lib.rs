//! Tidemill keeps SQL tables fresh. This is the map of the house, top layer first.
//!
//! A module may use what stands below it, never what stands above; `tests/it/layers.rs` checks it.

pub mod cli; //       one file a command: reads arguments, prints, never decides
pub mod serve; //     Arrow Flight SQL over the tables; metrics over HTTP
pub mod run; //       a project at work: leases, commits, followers, refreshes, history
pub mod connect; //   sources by name; files: find, decode, land
pub mod table; //     the warehouse: object store, data files, Delta tables, time travel
pub mod engine; //    runs canonical plans; compares relations
pub mod plan; //      names to DataFusion plans; checks, selectors, faults in SQL
pub mod spec; //      YAML to a typed project with places; faults; JSON Schema. Knows no DataFusion
pub mod generate; //  seeded shop data: folders of CSV, JSON or Parquet files, events in Kafka
pub mod telemetry; // logs as text or JSON
pub mod background; // work beside the calling task's, by threads that may yield
pub mod failpoint; // places where a test has the process die or wait
pub mod limits; //    every bound, with unit and reason
pub mod error; //     the one error type
