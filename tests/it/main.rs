//! The one integration-test binary: a module a subject, so that linking is paid once.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod flight;
