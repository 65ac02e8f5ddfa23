//! `tidemill generate`: seeded shop data.

use super::Exit;
use super::args::{DataFormat, GenerateArgs};
use crate::error::{Error, Result};
use crate::generate;

pub(super) fn execute(args: &GenerateArgs) -> Result<Exit> {
    for (name, share) in [("late", args.late), ("duplicates", args.duplicates), ("malformed", args.malformed)] {
        if !(0.0..=1.0).contains(&share) {
            return Err(Error::usage(format!("--{name} is a share from 0 to 1, found {share}")));
        }
    }
    let start = args
        .start
        .parse()
        .map_err(|_| Error::usage(format!("--start is a date such as 2018-01-01, found `{}`", args.start)))?;
    let format = match args.format {
        DataFormat::Parquet => generate::Format::Parquet,
        DataFormat::Csv => generate::Format::Csv,
        DataFormat::Json => generate::Format::Json,
    };
    let summary = generate::shop(&generate::Options {
        dir: args.dir.clone(),
        orders: args.orders,
        events: args.events,
        seed: args.seed,
        start,
        days: args.days,
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
