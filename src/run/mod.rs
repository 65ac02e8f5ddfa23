//! A project at work: leases, commits, followers, refreshes, history.
