//! Row rules of a source, evaluated as its rows come in.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch};
use datafusion::physical_plan::PhysicalExpr;

use super::decode::{CONTRACT_RULE, Decoded, Origin, retained};
use super::quarantine::{Refused, RefusedAt};
use crate::error::{Error, ErrorKind, Result, ResultExt};
use crate::spec::types::{OnFail, OnInvalid};

/// A rule over one row, bound to the contract's columns.
#[derive(Clone)]
pub struct RowRule {
    /// Shown to users.
    pub name: String,
    /// What happens to a row that fails.
    pub on_fail: OnFail,
    /// False fails; null passes.
    pub expr: Arc<dyn PhysicalExpr>,
}

/// Rows of one batch after the rules.
pub(super) struct Ruled {
    pub(super) accepted: RecordBatch,
    /// Index in the origin of each accepted row.
    pub(super) rows: Vec<usize>,
    pub(super) refused: Vec<Refused>,
    /// Refused rows that are kept nowhere.
    pub(super) dropped: u64,
    /// Rows that fail a rule that only warns, by rule.
    pub(super) warned: BTreeMap<String, u64>,
    pub(super) origin: Box<dyn Origin + Send>,
}

#[cfg(feature = "kafka")]
impl Ruled {
    /// Refuses accepted rows by their number among these, each with its reason; one without a reason is dropped.
    pub(super) fn refuse(&mut self, rule: &str, rows: &BTreeMap<usize, Option<String>>) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        for (row, reason) in rows {
            match reason {
                Some(reason) => self.refused.push(self.origin.refused(self.rows[*row], rule, reason.clone())?),
                None => self.dropped += 1,
            }
        }
        let numbers = std::mem::take(&mut self.rows);
        (self.accepted, self.rows) = retained(self.accepted.clone(), numbers, |row| !rows.contains_key(&row))?;
        Ok(())
    }
}

/// Applies contract and rules to decoded rows.
///
/// # Errors
/// Kind `Check`, when a row breaks the contract under `on_invalid: fail` or a rule with `on_fail: fail`.
pub(super) fn apply(decoded: Decoded, on_invalid: OnInvalid, rules: &[RowRule]) -> Result<Ruled> {
    let Decoded { fitting, kept, misfits, origin } = decoded;
    let (mut refused, mut warned) = (Vec::new(), BTreeMap::new());
    for (row, reason) in misfits {
        match on_invalid {
            OnInvalid::Fail => return Err(failure(&origin.refused(row, CONTRACT_RULE, reason)?)),
            OnInvalid::Quarantine => refused.push((row, origin.refused(row, CONTRACT_RULE, reason)?)),
            OnInvalid::Drop => {}
        }
    }
    let mut keep = vec![true; fitting.num_rows()];
    for rule in rules {
        for row in failing_rows(rule, &fitting)?.into_iter().filter(|row| !origin.is_tombstone(kept[*row])) {
            let refuse = || origin.refused(kept[row], &rule.name, format!("the check `{}` failed", rule.name));
            match rule.on_fail {
                OnFail::Warn => *warned.entry(rule.name.clone()).or_default() += 1,
                OnFail::Fail => return Err(failure(&refuse()?)),
                OnFail::Quarantine if keep[row] => {
                    keep[row] = false;
                    refused.push((kept[row], refuse()?));
                }
                OnFail::Quarantine => {}
            }
        }
    }
    refused.sort_by_key(|(row, _)| *row);
    let refused = refused.into_iter().map(|(_, row)| row).collect();
    let (accepted, rows) = retained(fitting, kept, |row| keep[row])?;
    Ok(Ruled { accepted, rows, refused, dropped: 0, warned, origin })
}

fn failure(row: &Refused) -> Error {
    let error = Error::new(ErrorKind::Check, row.reason.clone()).with("rule", &row.rule);
    let error = match row.at {
        RefusedAt::Row(row) => error.with("row", row),
        RefusedAt::Message { partition, offset } => error.with("partition", partition).with("offset", offset),
    };
    error.with("raw", &row.raw)
}

/// Rows of a batch that fail a rule.
fn failing_rows(rule: &RowRule, batch: &RecordBatch) -> Result<Vec<usize>> {
    let value = rule.expr.evaluate(batch).and_then(|value| value.into_array(batch.num_rows()));
    let value = value.external("a check can't be evaluated").map_err(|e| e.with("check", &rule.name))?;
    let passes = value.as_boolean_opt().ok_or_else(|| Error::internal("a check isn't boolean"))?;
    let fails = !passes.values();
    let fails = passes.nulls().map_or_else(|| fails.clone(), |valid| &fails & valid.inner());
    Ok(fails.set_indices().collect())
}
