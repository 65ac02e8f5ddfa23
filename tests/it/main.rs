//! The one integration-test binary: a module a subject, so that linking is paid once.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod commits;
mod flight;
mod generate;
mod house;
mod layers;
mod output;
mod select;
mod shop_clv;
mod spec_faults;
mod tables;
