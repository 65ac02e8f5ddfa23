//! Rules on a model's result: rows as they stream by, tables once they are staged. Knows no warehouse.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, StringArray};
use arrow::compute::{cast, filter_record_batch, kernels::boolean};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::catalog::TableProvider;
use datafusion::functions_aggregate::expr_fn::{count, max};
use datafusion::logical_expr::{JoinType, lit};
use datafusion::physical_plan::PhysicalExpr;
use datafusion::prelude::{Expr, SessionContext, col, ident};

use crate::engine::{self, shortened};
use crate::error::{Error, Result, ResultExt};
use crate::limits;
use crate::plan::{self, CheckTest, PlannedCheck};
use crate::run::history::CheckOutcome;
use crate::run::schedule;
use crate::spec::types::OnFail;

/// Rules over single rows, bound to a result's schema; counts across all streams of that result.
pub(in crate::run) struct RowChecks {
    rules: Vec<RowRule>,
    schema: SchemaRef,
    quarantine_schema: SchemaRef,
    run: String,
}

struct RowRule {
    name: String,
    on_fail: OnFail,
    expr: Arc<dyn PhysicalExpr>,
    failing: AtomicU64,
    sample: Mutex<Option<String>>,
}

impl RowChecks {
    /// Binds the row rules among `checks`, and one that key columns aren't null.
    pub(in crate::run) fn bind(
        ctx: &SessionContext,
        schema: &SchemaRef,
        checks: &[PlannedCheck],
        key: &[String],
        run: &str,
    ) -> Result<Self> {
        let rule = |name: &str, on_fail, expr: Expr| -> Result<RowRule> {
            let expr = engine::row_expression(ctx, expr, schema).map_err(|e| e.with("check", name))?;
            Ok(RowRule { name: name.into(), on_fail, expr, failing: AtomicU64::new(0), sample: Mutex::new(None) })
        };
        let mut rules = Vec::new();
        if let Some(expr) = key.iter().map(|column| ident(column).is_not_null()).reduce(Expr::and) {
            rules.push(rule(KEY_NOT_NULL, OnFail::Fail, expr)?);
        }
        for check in checks {
            if let CheckTest::Row(expr) = &check.test {
                rules.push(rule(check.name(), check.on_fail(), expr.clone())?);
            }
        }
        let columns: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
        Ok(Self {
            rules,
            schema: Arc::clone(schema),
            quarantine_schema: crate::connect::quarantine_schema(columns),
            run: run.into(),
        })
    }

    /// Columns of the quarantine table.
    pub(in crate::run) fn quarantine_schema(&self) -> &SchemaRef {
        &self.quarantine_schema
    }

    /// Splits a batch into the rows that stay and those that go to quarantine, counting failures of every rule. Refused rows
    /// are no part of the table: rules that warn or fail are about the rows that stay.
    pub(in crate::run) fn split(&self, batch: RecordBatch) -> Result<(RecordBatch, Option<RecordBatch>)> {
        let mut refused: Vec<Option<usize>> = Vec::new();
        for (index, rule) in self.rules.iter().enumerate().filter(|(_, rule)| rule.on_fail == OnFail::Quarantine) {
            let Some(fails) = rule.count(&batch)? else { continue };
            refused.resize(batch.num_rows(), None);
            for row in fails.values().set_indices() {
                refused[row].get_or_insert(index);
            }
        }
        let (accepted, quarantined) = if refused.is_empty() {
            (batch, None)
        } else {
            let keep = BooleanArray::from_iter(refused.iter().map(|rule| Some(rule.is_none())));
            let accepted = filter_record_batch(&batch, &keep).external("can't filter a batch")?;
            let rows = filter_record_batch(&batch, &boolean::not(&keep).external("can't filter a batch")?)
                .external("can't filter a batch")?;
            let rules: Vec<&str> = refused.iter().flatten().map(|rule| self.rules[*rule].name.as_str()).collect();
            (accepted, Some(quarantine_rows(&rows, &rules, &self.run, &self.quarantine_schema)?))
        };
        let mut failed: Option<BooleanArray> = None;
        for rule in self.rules.iter().filter(|rule| rule.on_fail != OnFail::Quarantine) {
            let fails = rule.count(&accepted)?.filter(|_| rule.on_fail == OnFail::Fail);
            failed = match (failed, fails) {
                (Some(a), Some(b)) => Some(boolean::or(&a, &b).external("can't filter a batch")?),
                (a, b) => a.or(b),
            };
        }
        // The version will be discarded: what can't stand in its table isn't written at all.
        let accepted = match failed {
            Some(failed) => {
                let keep = boolean::not(&failed).external("can't filter a batch")?;
                filter_record_batch(&accepted, &keep).external("can't filter a batch")?
            }
            None => accepted,
        };
        let options = RecordBatchOptions::new().with_row_count(Some(accepted.num_rows()));
        let accepted =
            RecordBatch::try_new_with_options(Arc::clone(&self.schema), accepted.columns().to_vec(), &options)
                .external("a row doesn't fit its table")?;
        Ok((accepted, quarantined))
    }

    /// What each rule came to.
    pub(in crate::run) fn outcomes(&self) -> Vec<CheckOutcome> {
        self.rules
            .iter()
            .map(|rule| {
                outcome(
                    &rule.name,
                    rule.on_fail,
                    rule.failing.load(Ordering::Relaxed),
                    rule.sample.lock().unwrap_or_else(PoisonError::into_inner).clone(),
                )
            })
            .filter(|outcome| outcome.check != KEY_NOT_NULL || outcome.failing_rows > 0)
            .collect()
    }
}

impl RowRule {
    /// Counts the rows that fail, keeps one to show, and says which they are, if any.
    fn count(&self, batch: &RecordBatch) -> Result<Option<BooleanArray>> {
        let Some(fails) = failing_rows(&self.expr, batch)? else { return Ok(None) };
        self.failing.fetch_add(fails.true_count() as u64, Ordering::Relaxed);
        let first = fails.values().set_indices().next().unwrap_or(0);
        self.sample.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| describe_row(batch, first));
        Ok(Some(fails))
    }
}

/// Name of the built-in rule that key columns aren't null.
const KEY_NOT_NULL: &str = "key_not_null";
/// Name of the built-in rule that keys don't repeat.
pub(in crate::run) const KEY_UNIQUE: &str = "key_unique";

/// What a rule came to.
pub(in crate::run) fn outcome(check: &str, on_fail: OnFail, failing_rows: u64, sample: Option<String>) -> CheckOutcome {
    let status = if failing_rows == 0 { "passed" } else { "failed" };
    let on_fail = match on_fail {
        OnFail::Warn => "warn",
        OnFail::Quarantine => "quarantine",
        OnFail::Fail => "fail",
    };
    CheckOutcome {
        model: String::new(),
        check: check.into(),
        on_fail: on_fail.into(),
        status: status.into(),
        failing_rows,
        sample,
    }
}

fn failing_rows(expr: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<Option<BooleanArray>> {
    let value = expr.evaluate(batch).external("a check can't be evaluated")?;
    let value = value.into_array(batch.num_rows()).external("a check can't be evaluated")?;
    let passes = value.as_boolean_opt().ok_or_else(|| Error::internal("a check isn't boolean"))?;
    // Only false fails: null passes, as in SQL's CHECK.
    let fails = BooleanArray::from_iter((0..passes.len()).map(|row| Some(passes.is_valid(row) && !passes.value(row))));
    Ok((fails.true_count() > 0).then_some(fails))
}

/// `column=value, …` of one row.
fn describe_row(batch: &RecordBatch, row: usize) -> String {
    let options = FormatOptions::default().with_null("null");
    // Of the hidden columns only those that say where the row stands.
    let is_shown =
        |name: &str, column: &ArrayRef| !name.starts_with('_') || column.is_valid(row) && name != "_ingested_at";
    let shown = batch.schema_ref().fields().iter().zip(batch.columns()).filter(|(f, c)| is_shown(f.name(), c));
    let cells = shown.map(|(field, column)| {
        let text = ArrayFormatter::try_new(column, &options).map(|f| f.value(row).to_string()).unwrap_or_default();
        format!("{}={}", field.name(), shortened(&text))
    });
    let (position, mut shown): (Vec<String>, Vec<String>) = cells.partition(|cell| cell.starts_with('_'));
    if shown.len() > limits::SHOWN_COLUMNS {
        shown.truncate(limits::SHOWN_COLUMNS);
        shown.push("…".to_string());
    }
    shown.into_iter().chain(position).collect::<Vec<_>>().join(", ")
}

/// Refused rows as text with the rule and run that refused them. A model's row stands nowhere in a source, unless its SELECT
/// says where.
pub(in crate::run) fn quarantine_rows(
    rows: &RecordBatch,
    rules: &[&str],
    run: &str,
    schema: &SchemaRef,
) -> Result<RecordBatch> {
    let mut columns: Vec<ArrayRef> = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let own = rows.column_by_name(field.name());
        let column: ArrayRef = match field.name().as_str() {
            "_rule" => Arc::new(StringArray::from_iter_values(rules)),
            "_reason" => {
                Arc::new(StringArray::from_iter_values(rules.iter().map(|rule| format!("the check `{rule}` failed"))))
            }
            "_run" => Arc::new(StringArray::from_iter_values(rules.iter().map(|_| run))),
            _ => match own {
                Some(own) if *field.data_type() == DataType::Utf8 => Arc::new(engine::as_text(own)?),
                Some(own) => cast(own, field.data_type()).external("a row's place can't be kept")?,
                None => arrow::array::new_null_array(field.data_type(), rows.num_rows()),
            },
        };
        columns.push(column);
    }
    RecordBatch::try_new(Arc::clone(schema), columns).external("can't build a quarantine row")
}

/// A relation cut in two.
pub(in crate::run) struct Split {
    pub(in crate::run) related: datafusion::prelude::DataFrame,
    pub(in crate::run) unrelated: Vec<RecordBatch>,
}

/// Rules over a whole relation: evaluates the ones among `checks` that no single row can tell, and that `key` doesn't repeat.
pub(in crate::run) struct TableChecks<'a> {
    /// Session that runs them, at the run's instant.
    pub(in crate::run) ctx: &'a SessionContext,
    /// The relation.
    pub(in crate::run) table: Arc<dyn TableProvider>,
    /// The run's instant, microseconds since 1970 UTC.
    pub(in crate::run) now_us: i64,
}

impl TableChecks<'_> {
    /// How many keys repeat, and one of them.
    pub(in crate::run) async fn unique(
        &self,
        check: &str,
        on_fail: OnFail,
        columns: &[String],
    ) -> Result<CheckOutcome> {
        let frame = self.ctx.read_table(Arc::clone(&self.table)).external("can't read the result")?;
        let not_null = columns.iter().map(|c| ident(c).is_not_null()).reduce(Expr::and).unwrap_or(lit(true));
        let keys = columns.iter().map(ident).collect();
        let repeated = frame
            .filter(not_null)
            .and_then(|f| f.aggregate(keys, vec![count(lit(1)).alias("rows")]))
            .and_then(|f| f.filter(col("rows").gt(lit(1))))
            .external("can't look for repeated keys")?;
        self.counted(check, on_fail, repeated).await
    }

    /// How many rows have a value that `target` lacks, and one of them.
    pub(in crate::run) async fn relationship(
        &self,
        check: &str,
        on_fail: OnFail,
        column: &str,
        target: Arc<dyn TableProvider>,
        target_column: &str,
    ) -> Result<CheckOutcome> {
        let missing = self.without_partner(column, target, target_column)?;
        self.counted(check, on_fail, missing).await
    }

    /// Rows whose non-null `column` stands nowhere in `target_column`.
    pub(in crate::run) fn without_partner(
        &self,
        column: &str,
        target: Arc<dyn TableProvider>,
        target_column: &str,
    ) -> Result<datafusion::prelude::DataFrame> {
        let frame = self.ctx.read_table(Arc::clone(&self.table)).external("can't read the result")?;
        let partner = "_partner";
        let target = self
            .ctx
            .read_table(target)
            .and_then(|t| t.select(vec![ident(target_column).alias(partner)]))
            .external("can't read the related table")?;
        frame
            .filter(ident(column).is_not_null())
            .and_then(|f| f.join_on(target, JoinType::LeftAnti, [ident(column).eq(ident(partner))]))
            .external("can't look for related rows")
    }

    /// The rows with a partner (or a null) as a plan's streams, and those without.
    pub(in crate::run) async fn split_by_partner(
        &self,
        column: &str,
        target: Arc<dyn TableProvider>,
        target_column: &str,
    ) -> Result<Split> {
        let unrelated = self.without_partner(column, Arc::clone(&target), target_column)?;
        let unrelated = unrelated.collect().await.map_err(crate::engine::failure)?;
        let unrelated = unrelated.into_iter().filter(|batch| batch.num_rows() > 0).collect();
        let partner = "_partner";
        let target = self
            .ctx
            .read_table(target)
            .and_then(|t| t.select(vec![ident(target_column).alias(partner)]))
            .external("can't read the related table")?;
        let rows = || self.ctx.read_table(Arc::clone(&self.table));
        let related = rows()
            .and_then(|f| f.join_on(target, JoinType::LeftSemi, [ident(column).eq(ident(partner))]))
            .and_then(|f| f.union(rows()?.filter(ident(column).is_null())?))
            .external("can't look for related rows")?;
        Ok(Split { related, unrelated })
    }

    /// Rows as those of a quarantine table.
    pub(in crate::run) fn quarantined(
        &self,
        rows: &[RecordBatch],
        rule: &str,
        run: &str,
        schema: &SchemaRef,
    ) -> Result<Vec<RecordBatch>> {
        rows.iter().map(|batch| quarantine_rows(batch, &vec![rule; batch.num_rows()], run, schema)).collect()
    }

    /// Whether the newest `column` is within `within_us` of now; an empty table isn't.
    pub(in crate::run) async fn freshness(
        &self,
        check: &str,
        on_fail: OnFail,
        column: &str,
        within_us: i64,
    ) -> Result<CheckOutcome> {
        let frame = self.ctx.read_table(Arc::clone(&self.table)).external("can't read the result")?;
        let newest = frame
            .aggregate(vec![], vec![max(ident(column))])
            .external("can't look for the newest row")?
            .collect()
            .await
            .map_err(crate::engine::failure)?;
        let zone = plan::zone_of(self.ctx.copied_config().options());
        let newest_us = newest.first().and_then(|batch| instant_us(batch.column(0), &zone));
        let (failing, sample) = match newest_us {
            Some(us) if self.now_us - us <= within_us => (0, None),
            // The same words for as long as nothing comes.
            Some(us) => {
                let (newest, within_s) = (schedule::instant_text(us), within_us / 1_000_000);
                (1, Some(format!("newest {column} is {newest}, more than {within_s} s ago")))
            }
            None => (1, Some("the table is empty".to_string())),
        };
        Ok(outcome(check, on_fail, failing, sample))
    }

    async fn counted(
        &self,
        check: &str,
        on_fail: OnFail,
        failing: datafusion::prelude::DataFrame,
    ) -> Result<CheckOutcome> {
        let rows = failing.clone().count().await.map_err(crate::engine::failure)? as u64;
        let sample = if rows == 0 {
            None
        } else {
            let first = failing.limit(0, Some(1)).external("can't read a failing row")?;
            let batches = first.collect().await.map_err(crate::engine::failure)?;
            batches.iter().find(|b| b.num_rows() > 0).map(|batch| describe_row(batch, 0))
        };
        Ok(outcome(check, on_fail, rows, sample))
    }
}

/// The first value of a time column as an instant, microseconds since 1970 UTC; wall-clock times and dates are those of `zone`,
/// as a session reads them: a gap's are after it, a fold's the first ones.
fn instant_us(column: &ArrayRef, zone: &str) -> Option<i64> {
    let unit = arrow::datatypes::TimeUnit::Microsecond;
    let is_instant = matches!(column.data_type(), DataType::Timestamp(_, Some(_)));
    let micros = cast(column, &DataType::Timestamp(unit, is_instant.then(|| "UTC".into()))).ok()?;
    let micros = micros.as_primitive_opt::<arrow::datatypes::TimestampMicrosecondType>()?;
    let us = (!micros.is_empty() && micros.is_valid(0)).then(|| micros.value(0))?;
    match is_instant {
        true => Some(us),
        false => schedule::instant_in(us, zone),
    }
}

/// `daily_sales: the check revenue >= 0 failed on 3 rows, such as day=…`
pub(in crate::run) fn describe(check: &CheckOutcome) -> String {
    format!("{}: {}", check.model, describe_failure(check))
}

/// The same where the model is told anyway.
pub(in crate::run) fn describe_failure(check: &CheckOutcome) -> String {
    let rows = if check.failing_rows == 1 { "row" } else { "rows" };
    let sample = check.sample.as_ref().map(|s| format!(", such as {s}")).unwrap_or_default();
    format!("the check `{}` failed on {} {rows}{sample}", check.check, check.failing_rows)
}
