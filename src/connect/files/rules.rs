//! Row rules of a source, evaluated as its rows come in.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use datafusion::physical_plan::PhysicalExpr;

use super::decode::Decoded;
use crate::connect::quarantine::Refused;
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
    pub(super) numbers: Vec<u64>,
    pub(super) refused: Vec<Refused>,
}

/// Applies contract and rules to decoded rows; counts warnings by rule.
///
/// # Errors
/// Kind `Check`, when a row breaks the contract under `on_invalid: fail` or a rule with `on_fail: fail`.
pub(super) fn apply(
    mut decoded: Decoded,
    on_invalid: OnInvalid,
    rules: &[RowRule],
    warned: &mut BTreeMap<String, u64>,
) -> Result<Ruled> {
    let mut refused = std::mem::take(&mut decoded.refused);
    if on_invalid == OnInvalid::Fail && let Some(first) = refused.first() {
        return Err(failure(first));
    }
    let mut keep = vec![true; decoded.accepted.num_rows()];
    for rule in rules {
        for row in failing_rows(rule, &decoded.accepted)? {
            match rule.on_fail {
                OnFail::Warn => *warned.entry(rule.name.clone()).or_default() += 1,
                OnFail::Fail => return Err(failure(&decoded.refuse(row, &rule.name, reason(rule)))),
                OnFail::Quarantine if keep[row] => {
                    keep[row] = false;
                    refused.push(decoded.refuse(row, &rule.name, reason(rule)));
                }
                OnFail::Quarantine => {}
            }
        }
    }
    if on_invalid == OnInvalid::Drop {
        refused.retain(|row| row.rule != super::decode::CONTRACT_RULE);
    }
    refused.sort_by_key(|row| row.row);
    if keep.iter().all(|keep| *keep) {
        return Ok(Ruled { accepted: decoded.accepted, numbers: decoded.numbers, refused });
    }
    let numbers = decoded.numbers.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(number, _)| *number).collect();
    let accepted = arrow::compute::filter_record_batch(&decoded.accepted, &BooleanArray::from(keep))
        .external("can't leave refused rows out")?;
    Ok(Ruled { accepted, numbers, refused })
}

fn reason(rule: &RowRule) -> String {
    format!("the check `{}` failed", rule.name)
}

fn failure(row: &Refused) -> Error {
    Error::new(ErrorKind::Check, row.reason.clone()).with("rule", &row.rule).with("row", row.row).with("raw", &row.raw)
}

/// Rows of a batch that fail a rule.
pub(super) fn failing_rows(rule: &RowRule, batch: &RecordBatch) -> Result<Vec<usize>> {
    let value = rule.expr.evaluate(batch).and_then(|value| value.into_array(batch.num_rows()));
    let value = value.external("a check can't be evaluated").map_err(|e| e.with("check", &rule.name))?;
    let passes = value.as_boolean_opt().ok_or_else(|| Error::internal("a check isn't boolean"))?;
    Ok((0..passes.len()).filter(|row| passes.is_valid(*row) && !passes.value(*row)).collect())
}
