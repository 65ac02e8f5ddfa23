//! `tidemill generate`: seeded shop data, in files or as a stream.

use std::path::Path;

use chrono::NaiveDate;

use super::Exit;
use super::args::{DataFormat, GenerateArgs};
use crate::error::{Error, Result};
use crate::generate;

/// Days of a shop that has a first day.
const DAYS: u32 = 151;

pub(super) fn execute(args: &GenerateArgs) -> Result<Exit> {
    for (name, share) in [("late", args.late), ("duplicates", args.duplicates), ("malformed", args.malformed)] {
        if !(0.0..=1.0).contains(&share) {
            return Err(Error::usage(format!("--{name} is a share from 0 to 1, found {share}")));
        }
    }
    let day = |text: &String| {
        let wrong = |_| Error::usage(format!("--start is a date such as 2018-01-01, found `{text}`"));
        text.parse::<NaiveDate>().map_err(wrong)
    };
    let start = args.start.as_ref().map(day).transpose()?;
    match (&args.dir, &args.kafka) {
        (_, None) if args.topic.is_some() || args.topics.is_some() || args.rate.is_some() => {
            Err(Error::usage("--topic, --topics and --rate go with `--kafka BROKERS`"))
        }
        (Some(dir), None) => write(args, dir, start),
        (None, Some(brokers)) => send(args, brokers, start),
        _ => Err(Error::usage("give either a folder to write, or `--kafka BROKERS --topic T`")),
    }
}

/// The first day of a shop that has one.
fn first_day() -> Option<NaiveDate> {
    NaiveDate::from_ymd_opt(2018, 1, 1)
}

fn write(args: &GenerateArgs, dir: &Path, start: Option<NaiveDate>) -> Result<Exit> {
    let format = match args.format {
        Some(DataFormat::Parquet) => generate::Format::Parquet,
        Some(DataFormat::Csv) | None => generate::Format::Csv,
        Some(DataFormat::Json) => generate::Format::Json,
    };
    let summary = generate::shop(&generate::Options {
        dir: dir.to_path_buf(),
        orders: args.orders,
        events: args.events,
        seed: args.seed,
        start: start.or_else(first_day).unwrap_or_default(),
        days: args.days.unwrap_or(DAYS),
        format,
        late: args.late,
        duplicates: args.duplicates,
        malformed: args.malformed,
    })?;
    for table in &summary.tables {
        let malformed = if table.malformed > 0 { format!(", {} malformed", table.malformed) } else { String::new() };
        say!("{:<20} {:>10} rows in {:>4} files{malformed}", table.table, table.rows, table.files);
    }
    Ok(0)
}

#[cfg(feature = "kafka")]
fn send(args: &GenerateArgs, brokers: &str, start: Option<NaiveDate>) -> Result<Exit> {
    if args.format.is_some_and(|format| format != DataFormat::Json) {
        return Err(Error::usage("messages are JSON: --format is for files"));
    }
    let (topics, start) = match (&args.topic, &args.topics) {
        (Some(topic), None) => (generate::Topics::Events(topic.clone()), start),
        (None, Some(prefix)) => (generate::Topics::Shop(prefix.clone()), start.or_else(first_day)),
        _ => {
            return Err(Error::usage(
                "--kafka needs either `--topic T` for events, or `--topics PREFIX` for the whole shop",
            ));
        }
    };
    let summary = generate::stream(&generate::StreamOptions {
        brokers: brokers.to_string(),
        topics,
        rate: args.rate.unwrap_or(0),
        events: args.events,
        orders: args.orders,
        seed: args.seed,
        start,
        days: args.days.or(start.map(|_| DAYS)),
        late: args.late,
        duplicates: args.duplicates,
        malformed: args.malformed,
    })?;
    let counts = [(summary.late, "late"), (summary.duplicates, "sent twice"), (summary.malformed, "malformed")];
    let counts = counts.into_iter().filter(|(count, _)| *count > 0);
    let counts: String = counts.map(|(count, kind)| format!(", {count} {kind}")).collect();
    let width = summary.messages.iter().map(|(topic, _)| topic.len()).max().unwrap_or_default().max(20);
    let last = summary.messages.len().saturating_sub(1);
    for (n, (topic, messages)) in summary.messages.iter().enumerate() {
        // Events come last, and most of what is told beside the messages is of them.
        say!("{topic:<width$} {messages:>10} messages sent{}", if n == last { counts.as_str() } else { "" });
    }
    Ok(0)
}

#[cfg(not(feature = "kafka"))]
fn send(_: &GenerateArgs, _: &str, _: Option<NaiveDate>) -> Result<Exit> {
    Err(Error::usage("this build has no Kafka").with("hint", "build with `--features kafka`, or give a folder"))
}
