//! A seeded shop: folders of CSV, JSON or Parquet files, one a source of the shop's project, or streams of the same. Knows no
//! source, model or plan.
//!
//! Everything is drawn from random streams that are named by seed, table and place in it, so that the same options give
//! the same bytes whatever the number of cores, and a day can be made without the days before it being kept.

mod catalog;
mod draw;
mod encode;
mod events;
mod files;
#[cfg(feature = "kafka")]
mod kafka;
mod orders;
mod parallel;
mod people;
mod places;
mod rhythm;
mod tables;

use std::path::PathBuf;

use chrono::NaiveDate;

use crate::error::{Error, Result};

#[cfg(feature = "kafka")]
pub use kafka::{StreamOptions, StreamSummary, Topics, stream};

use catalog::Catalog;
use files::Output;
use parallel::Crew;
use rhythm::Period;

/// What to generate.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder that gets a folder a table; made if absent. Files of the same names are replaced, others stay.
    pub dir: PathBuf,
    /// Rows of `orders`.
    pub orders: u64,
    /// Rows of `events`, repeats and malformed lines not counted.
    pub events: u64,
    /// The same seed and options give the same bytes.
    pub seed: u64,
    /// First day.
    pub start: NaiveDate,
    /// Days from `start` on, 1 to 36,500.
    pub days: u32,
    /// How files are written.
    pub format: Format,
    /// Share of events, 0 to 1, that stand in the file of one of the three days after their own. Where the period has no such
    /// day they stand in the last file, out of order.
    pub late: f64,
    /// Share of events, 0 to 1, that stand twice: added to `events`.
    pub duplicates: f64,
    /// Malformed lines for each whole one of `orders`, `items`, `payments`, `reviews` and `events`, 0 to 1: added to the
    /// whole ones, which stay as they are. Not for Parquet.
    pub malformed: f64,
}

/// How files are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// zstd, one row group a piece of work.
    Parquet,
    /// A header, LF, quotes where needed, null empty.
    Csv,
    /// One object a line.
    Json,
}

impl Format {
    /// The ending of file names, without the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Csv => "csv",
            Self::Json => "json",
        }
    }
}

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Tables in order of folders' first writing.
    pub tables: Vec<TableSummary>,
    /// Events that stand in a later file than their own, or out of order in the last one.
    pub late: u64,
    /// Events written a second time.
    pub duplicates: u64,
}

/// What was written of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TableSummary {
    /// Folder's name.
    pub table: &'static str,
    /// Whole rows, repeats included.
    pub rows: u64,
    /// Malformed lines.
    pub malformed: u64,
    /// Files.
    pub files: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// Writes a shop under `options.dir`. Each file appears whole: it is written under a hidden name and renamed.
///
/// # Errors
/// Usage, for shares outside 0 to 1, no days, a period past the year 9999 or malformed lines in Parquet; external, for I/O.
pub fn shop(options: &Options) -> Result<Summary> {
    check(options)?;
    make(options, Crew::of_all_cores())
}

fn make(options: &Options, crew: Crew) -> Result<Summary> {
    let period = Period::new(options.start, options.days)?;
    let catalog = Catalog::new(options.seed, options.orders, options.events);
    let mut output = Output::new(options)?;
    catalog.write(crew, &mut output)?;
    orders::write(options, crew, &period, &catalog, &mut output)?;
    let told = events::write(options, crew, &period, &catalog, &mut output)?;
    Ok(Summary { tables: output.finish()?, late: told.late, duplicates: told.duplicates })
}

/// A purchase's seconds since the first day fit 32 bits.
const LONGEST_DAYS: u32 = 36_500;

fn check_days(days: u32) -> Result<()> {
    match days {
        0 => Err(Error::usage("a shop needs at least one day")),
        1..=LONGEST_DAYS => Ok(()),
        _ => Err(Error::usage(format!("a shop has at most {LONGEST_DAYS} days, not {days}"))),
    }
}

fn check_shares(late: f64, duplicates: f64, malformed: f64) -> Result<()> {
    for (name, share) in [("late", late), ("duplicates", duplicates), ("malformed", malformed)] {
        if !(0.0..=1.0).contains(&share) {
            return Err(Error::usage(format!("{name} is a share from 0 to 1, not {share}")));
        }
    }
    Ok(())
}

fn check(options: &Options) -> Result<()> {
    check_shares(options.late, options.duplicates, options.malformed)?;
    check_days(options.days)?;
    if options.malformed > 0.0 && options.format == Format::Parquet {
        return Err(Error::usage("Parquet has no lines that could be malformed: choose csv or json"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    use super::*;

    fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        for folder in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            for file in fs::read_dir(folder.path()).unwrap().map(Result::unwrap) {
                found.insert(file.path().strip_prefix(dir).unwrap().to_path_buf(), fs::read(file.path()).unwrap());
            }
        }
        found
    }

    #[test]
    fn bytes_are_the_same_whatever_the_number_of_workers() {
        // Large enough that a day has several pieces of events and of orders, and customers several pieces.
        let with = |workers| {
            let dir = tempfile::tempdir().unwrap();
            let options = Options {
                dir: dir.path().to_path_buf(),
                orders: 40_000,
                events: 300_000,
                seed: 3,
                start: NaiveDate::from_ymd_opt(2018, 11, 3).unwrap(),
                days: 2,
                format: Format::Csv,
                late: 0.02,
                duplicates: 0.02,
                malformed: 0.01,
            };
            let summary = make(&options, Crew { workers }).unwrap();
            (summary, files(dir.path()))
        };
        let one = with(1);
        for workers in [2, 5] {
            assert!(one == with(workers), "{workers} workers");
        }
    }

    #[test]
    fn a_day_of_many_pieces_is_in_order_of_time() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options {
            dir: dir.path().to_path_buf(),
            orders: 30_000,
            events: 200_000,
            seed: 5,
            start: NaiveDate::from_ymd_opt(2018, 1, 5).unwrap(),
            days: 1,
            format: Format::Csv,
            late: 0.0,
            duplicates: 0.0,
            malformed: 0.0,
        };
        shop(&options).unwrap();
        for (name, column, rows) in [("events/2018-01-05.csv", 0, 200_000), ("orders/2018-01-05.csv", 3, 30_000)] {
            let text = fs::read_to_string(dir.path().join(name)).unwrap();
            let times: Vec<&str> = text.lines().skip(1).filter_map(|line| line.split(',').nth(column)).collect();
            assert_eq!(times.len(), rows);
            assert!(times.is_sorted() && times.iter().all(|t| t.starts_with("2018-01-05")), "{name}");
        }
    }
}
