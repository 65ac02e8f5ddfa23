//! The one integration-test binary: a module a subject, so that linking is paid once.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod output;
