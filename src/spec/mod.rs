//! YAML to a typed project, with the place of everything; faults; the JSON Schema. Pure: knows no DataFusion.

pub mod fault;
pub mod sql_type;
pub mod types;
