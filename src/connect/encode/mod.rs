//! Rows as text: single values, and messages of a sink. The counterpart of `decode`; knows no broker and no file.

pub(crate) mod csv;
pub(in crate::connect) mod envelope;
pub(crate) mod json;
pub(crate) mod value;

#[cfg(feature = "kafka")]
pub(in crate::connect) mod message;
