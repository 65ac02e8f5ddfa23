//! `tidemill schema`: the JSON Schema of the YAML.

use super::Exit;
use crate::error::Result;
use crate::spec;

pub(super) fn execute() -> Result<Exit> {
    say!("{:#}", spec::json_schema());
    Ok(0)
}
