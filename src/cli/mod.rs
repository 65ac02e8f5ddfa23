//! One file a command; prints, never decides.

pub mod output;
