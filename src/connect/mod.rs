//! Sources by connector name. Knows the warehouse only as a place to land rows in; knows no model, no commit.

pub mod files;
