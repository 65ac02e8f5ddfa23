//! From SQL text to a plan that only reads, and to parameters. Knows no connection.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::common::metadata::ScalarAndMetadata;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{ParamValues, ScalarValue};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::{DFParser, Statement};
use datafusion::sql::sqlparser::ast::Statement as SqlStatement;

use super::sqlstate::{SqlError, SqlResult};
use super::wire;
use crate::error::{Error, Result};

/// Plans one statement that only reads, with DataFusion's dialect. Anything else is an error of kind `Usage`.
pub async fn plan_read_only(session: &SessionContext, sql: &str) -> Result<LogicalPlan> {
    match plan_one(session, sql).await {
        Ok(plan) => Ok(plan),
        Err(error) => Err(Error::usage(error.message.clone()).with("sqlstate", &error.state)),
    }
}

async fn plan_one(session: &SessionContext, sql: &str) -> SqlResult<LogicalPlan> {
    let mut statements = DFParser::parse_sql(sql)?;
    let statement = match (statements.pop_front(), statements.is_empty()) {
        (Some(statement), true) => statement,
        (None, _) => return Err(SqlError::new("42601", "there is no statement")),
        (Some(_), false) => return Err(SqlError::new("42601", "one statement at a time")),
    };
    refuse_writers(&statement)?;
    let plan = session.state().statement_to_plan(statement).await?;
    only_reads(&plan)?;
    Ok(plan)
}

/// Refuses by the syntax, before names are looked up: an INSERT into an unknown table is a write first of all.
fn refuse_writers(statement: &Statement) -> SqlResult<()> {
    match statement {
        Statement::Explain(explain) => refuse_writers(&explain.statement),
        Statement::Statement(statement) => match statement.as_ref() {
            SqlStatement::Query(_)
            | SqlStatement::Explain { .. }
            | SqlStatement::ExplainTable { .. }
            | SqlStatement::ShowTables { .. }
            | SqlStatement::ShowColumns { .. }
            | SqlStatement::ShowFunctions { .. }
            | SqlStatement::ShowVariable { .. } => Ok(()),
            other => Err(SqlError::read_only(first_words(&other.to_string()))),
        },
        other => Err(SqlError::read_only(first_words(&other.to_string()))),
    }
}

pub(super) fn first_words(sql: &str) -> String {
    let words: Vec<&str> = sql.split_whitespace().take(2).collect();
    format!("{} is refused", words.join(" ").to_uppercase())
}

/// Refuses a plan that would change anything, wherever in it that stands.
pub(super) fn only_reads(plan: &LogicalPlan) -> SqlResult<()> {
    let mut writer = None;
    plan.apply_with_subqueries(|node| {
        Ok(match node {
            LogicalPlan::Dml(_) | LogicalPlan::Ddl(_) | LogicalPlan::Copy(_) | LogicalPlan::Statement(_) => {
                writer = Some(node.display().to_string());
                TreeNodeRecursion::Stop
            }
            _ => TreeNodeRecursion::Continue,
        })
    })?;
    match writer {
        Some(writer) => Err(SqlError::read_only(first_words(&writer))),
        None => Ok(()),
    }
}

/// Replaces each `?` outside of quotes and comments by `$1`, `$2`, … in order.
pub(super) fn number_placeholders(sql: &str) -> String {
    let mut out = String::with_capacity(sql.len() + 8);
    let mut rest = sql;
    let mut count = 0;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '\'' | '"' | '`' => quoted(rest, first),
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => comment(rest),
            '$' => dollar_quoted(rest),
            '?' => {
                count += 1;
                out.push_str(&format!("${count}"));
                rest = &rest[1..];
                continue;
            }
            other => other.len_utf8(),
        };
        let (part, after) = rest.split_at(length);
        out.push_str(part);
        rest = after;
    }
    out
}

/// Bytes up to the closing quote; a doubled one simply starts the next quoted part.
fn quoted(text: &str, quote: char) -> usize {
    text[1..].find(quote).map_or(text.len(), |end| end + 2)
}

fn comment(text: &str) -> usize {
    let mut depth = 0usize;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// Bytes of `$tag$ … $tag$`, or of the lone dollar.
fn dollar_quoted(text: &str) -> usize {
    let Some(end) = text[1..].find('$') else { return 1 };
    let tag = &text[..end + 2];
    if !tag[1..tag.len() - 1].chars().all(|c| c.is_alphanumeric() || c == '_') {
        return 1;
    }
    text[tag.len()..].find(tag).map_or(1, |close| tag.len() * 2 + close)
}

/// The parameters of a plan: `$1`, `$2`, … in order of number, or named ones by name. A type that the SQL leaves open is text.
pub(super) fn parameters(plan: &LogicalPlan) -> SqlResult<Schema> {
    let counts = row_count_placeholders(plan)?;
    let mut found: Vec<(String, Option<DataType>)> = plan.get_parameter_types()?.into_iter().collect();
    for (name, data_type) in &mut found {
        if data_type.is_none() && counts.contains(name) {
            *data_type = Some(DataType::Int64);
        }
    }
    found.sort_by_key(|(name, _)| (number(name), name.clone()));
    if let Some(highest) = found.iter().filter_map(|(name, _)| number(name)).max() {
        if found.iter().any(|(name, _)| number(name).is_none()) {
            return Err(SqlError::new("07001", "numbered and named parameters can't be mixed"));
        }
        if highest != found.len() {
            let gap = (1..=highest).find(|n| found.iter().all(|(name, _)| number(name) != Some(*n))).unwrap_or(0);
            return Err(SqlError::new("07001", format!("the parameter ${highest} is used, but not ${gap}")));
        }
    }
    let fields = found
        .into_iter()
        .map(|(name, data_type)| Field::new(name, parameter_type(&data_type.unwrap_or(DataType::Utf8)), true));
    Ok(Schema::new(fields.collect::<Vec<_>>()))
}

/// The type that a driver is told to send. The JDBC driver writes milliseconds into times of whatever unit is asked for,
/// so milliseconds it is; see [`bindings`] for the way back. Drivers that choose types themselves lose nothing.
fn parameter_type(data_type: &DataType) -> DataType {
    match wire::wire_type(data_type) {
        DataType::Timestamp(_, zone) => DataType::Timestamp(TimeUnit::Millisecond, zone),
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time32(TimeUnit::Millisecond),
        other => other,
    }
}

/// The type that a sent value is bound as: never a coarser unit than the columns', or the comparison would be coarse too.
fn bound_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond, zone) => {
            DataType::Timestamp(TimeUnit::Microsecond, zone.clone())
        }
        DataType::Time32(_) => DataType::Time64(TimeUnit::Microsecond),
        other => other.clone(),
    }
}

/// Placeholders in LIMIT and OFFSET, to which DataFusion gives no type.
fn row_count_placeholders(plan: &LogicalPlan) -> SqlResult<Vec<String>> {
    let mut names = Vec::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Limit(limit) = node {
            for bound in [&limit.skip, &limit.fetch].into_iter().flatten() {
                if let Expr::Placeholder(placeholder) = bound.as_ref() {
                    names.push(placeholder.id.clone());
                }
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(names)
}

fn number(placeholder: &str) -> Option<usize> {
    placeholder.strip_prefix('$')?.parse().ok()
}

/// One execution's values for each row of `rows`.
pub(super) fn bindings(parameters: &Schema, rows: &[RecordBatch]) -> SqlResult<Vec<ParamValues>> {
    let is_numbered = parameters.fields().iter().all(|field| number(field.name()).is_some());
    let mut bindings = Vec::new();
    for batch in rows {
        if batch.num_columns() != parameters.fields().len() {
            return Err(wrong_count(parameters.fields().len(), batch.num_columns()));
        }
        let options = CastOptions { safe: false, ..CastOptions::default() };
        let columns = batch.columns().iter().map(|c| cast_with_options(c, &bound_type(c.data_type()), &options));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            let mut values = Vec::with_capacity(columns.len());
            for column in &columns {
                values.push(ScalarAndMetadata::from(ScalarValue::try_from_array(column, row)?));
            }
            bindings.push(match is_numbered {
                true => ParamValues::List(values),
                false => ParamValues::Map(named(parameters, values)),
            });
        }
    }
    Ok(bindings)
}

fn named(parameters: &Schema, values: Vec<ScalarAndMetadata>) -> HashMap<String, ScalarAndMetadata> {
    let names = parameters.fields().iter().map(|field| field.name().trim_start_matches('$').to_owned());
    names.zip(values).collect()
}

pub(super) fn wrong_count(expected: usize, given: usize) -> SqlError {
    SqlError::new("07001", format!("the statement has {expected} parameters, and {given} were given"))
}

/// The plan with its values. Unions and the like are typed by the values, so the schema is that of the returned plan.
pub(super) fn bind(plan: &LogicalPlan, values: &ParamValues) -> SqlResult<LogicalPlan> {
    Ok(plan.clone().with_param_values(values.clone())?)
}

/// The one schema of all executions of a statement.
pub(super) fn common_schema(plans: &[LogicalPlan], catalog: &str) -> SqlResult<Arc<Schema>> {
    let mut schemas = plans.iter().map(|plan| wire::result_schema(plan.schema(), catalog));
    let first = schemas.next().ok_or_else(|| SqlError::new("07001", "no row of parameters was given"))?;
    let types = |schema: &Schema| schema.fields().iter().map(|f| f.data_type().clone()).collect::<Vec<_>>();
    if schemas.any(|other| types(&other) != types(&first)) {
        return Err(SqlError::new("07001", "the rows of parameters give results of different types"));
    }
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn question_marks_are_numbered_outside_of_quotes_and_comments() {
        for (sql, expected) in [
            ("select ? + ?", "select $1 + $2"),
            ("select '?', 'it''s ?', ?", "select '?', 'it''s ?', $1"),
            ("select \"a?\" -- ?\n, ?", "select \"a?\" -- ?\n, $1"),
            ("select /* ? /* ? */ ? */ ?", "select /* ? /* ? */ ? */ $1"),
            ("select $q$ ? $q$, $$?$$, ?", "select $q$ ? $q$, $$?$$, $1"),
            ("select $1, $2", "select $1, $2"),
            ("select 'é?' , ? -- é", "select 'é?' , $1 -- é"),
            ("select '?", "select '?"),
        ] {
            assert_eq!(number_placeholders(sql), expected);
        }
    }

    async fn parameters_of(sql: &str) -> SqlResult<Vec<(String, DataType)>> {
        let plan = plan_read_only(&SessionContext::new(), sql).await?;
        let schema = parameters(&plan)?;
        Ok(schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect())
    }

    #[tokio::test]
    async fn parameters_are_ordered_by_number_and_must_have_no_gap() {
        let many = (1..=11).rev().map(|n| format!("${n}")).collect::<Vec<_>>().join(", ");
        let names = parameters_of(&format!("select {many}")).await.unwrap();
        assert_eq!(names[10], ("$11".to_owned(), DataType::Utf8));
        assert_eq!(parameters_of("select $2").await.unwrap_err().state, "07001");
        assert_eq!(parameters_of("select $1, $x").await.unwrap_err().state, "07001");
        let named = parameters_of("select 1 where 2 > $b and 1.5 < $a").await.unwrap();
        assert_eq!(named, [("$a".to_owned(), DataType::Float64), ("$b".to_owned(), DataType::Int64)]);
    }
}
