//! The one integration-test binary: a module a subject, so that linking is paid once.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod answers;
mod bad_input;
mod changed_models;
mod changing_files;
mod chaos;
mod commits;
mod disk_faults;
mod failing_rows;
mod file_sinks;
mod files_parity;
mod flight;
mod generate;
#[cfg(feature = "kafka")]
mod generate_kafka;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "kafka")]
mod kafka_archive;
#[cfg(feature = "kafka")]
mod kafka_contract;
#[cfg(feature = "kafka")]
mod kafka_faults;
#[cfg(feature = "kafka")]
mod kafka_history;
#[cfg(feature = "kafka")]
mod kafka_kill;
#[cfg(feature = "kafka")]
mod kafka_retention;
#[cfg(feature = "kafka")]
mod kafka_server;
#[cfg(feature = "kafka")]
mod kafka_sinks;
#[cfg(feature = "kafka")]
mod kafka_stream;
#[cfg(feature = "kafka")]
mod kafka_time;
#[cfg(feature = "kafka")]
mod kafka_upsert;
mod plan_faults;
mod plan_project;
mod plan_runs;
mod plan_tells;
mod plan_time;
mod key_filters;
mod kill;
mod kill_incremental;
mod run;
mod run_checks;
mod run_files;
mod run_query;
mod scratch;
mod held;
mod house;
mod layers;
mod logs;
mod metrics;
mod moved_models;
mod output;
mod parity;
mod power_cut;
mod process;
mod nested;
mod python;
mod s3;
mod s3_server;
mod select;
mod shared_states;
mod shop_clv;
#[cfg(feature = "kafka")]
mod shop_kafka;
mod shop_models;
mod spec_faults;
mod sink_health;
mod tables;
mod unit_tests;
#[cfg(feature = "kafka")]
mod up_ends;
mod up_failing;
mod up_schedules;
mod wall_clocks;
