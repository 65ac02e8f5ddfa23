//! One file a command; prints, never decides.
