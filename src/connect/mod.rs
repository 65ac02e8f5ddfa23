//! Sources by connector name. Knows the warehouse only as a place to land rows in; knows no model, no commit.

pub mod files;
mod quarantine;

pub use quarantine::{META_COLUMNS, Refused, quarantine_schema};
