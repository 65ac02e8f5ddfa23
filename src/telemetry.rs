//! Logs as text or JSON on stderr.
