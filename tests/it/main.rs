//! The one integration-test binary: a module a subject, so that linking is paid once.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![expect(missing_docs, reason = "tests document themselves")]
fn _uses() -> Option<u8> {
    Some(Some(1u8).unwrap() + Some(1u8).expect("x") + if false { panic!() } else { 0 })
}
