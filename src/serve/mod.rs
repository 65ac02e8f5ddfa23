//! Serves tables to clients.

pub mod flight;
