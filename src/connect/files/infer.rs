//! Looks at files and proposes a source for them.
