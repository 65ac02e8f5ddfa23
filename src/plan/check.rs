//! Checks bound to their relation. Reads no rows.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::{DFSchema, ToDFSchema};
use datafusion::logical_expr::{ExprSchemable, lit};
use datafusion::prelude::{Expr, SessionContext, ident};
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, ExprWithAlias};

use super::model::Relations;
use super::sql_fault::{self, FAULTS_PER_SQL};
use super::{CheckTest, PlannedCheck, sql, types};
use crate::spec::fault::Fault;
use crate::spec::nearest;
use crate::spec::types::{CheckKind, CheckSpec, Located, SqlText};

/// What binding checks needs.
pub(super) struct Binder<'a> {
    pub(super) ctx: &'a SessionContext,
    pub(super) relations: &'a Relations,
    pub(super) params: &'a [&'a str],
    pub(super) zone: &'a str,
}

impl Binder<'_> {
    /// Binds the checks of a relation; faulty ones are left out.
    pub(super) fn bind(&self, of: &str, schema: &SchemaRef, checks: &[CheckSpec], faults: &mut Vec<Fault>) -> Vec<PlannedCheck> {
        let mut bound = Vec::new();
        for spec in checks {
            match self.test(of, schema, &spec.kind) {
                Ok(test) => bound.push(PlannedCheck { spec: spec.clone(), test }),
                Err(found) => faults.extend(found),
            }
        }
        bound
    }

    fn test(&self, of: &str, schema: &SchemaRef, kind: &CheckKind) -> Result<CheckTest, Vec<Fault>> {
        let column = |name: &Located<String>| column_type(of, schema, name).map_err(|fault| vec![fault]);
        match kind {
            CheckKind::Expression(sql) => self.expression(schema, sql).map(CheckTest::Row),
            CheckKind::Unique(columns) => {
                let faults: Vec<Fault> = columns.iter().filter_map(|c| column_type(of, schema, c).err()).collect();
                if !faults.is_empty() {
                    return Err(faults);
                }
                Ok(CheckTest::Unique(columns.iter().map(|c| c.value.clone()).collect()))
            }
            CheckKind::NotNull(columns) => {
                let faults: Vec<Fault> = columns.iter().filter_map(|c| column_type(of, schema, c).err()).collect();
                if !faults.is_empty() {
                    return Err(faults);
                }
                let all = columns.iter().map(|c| ident(&c.value).is_not_null()).reduce(Expr::and);
                Ok(CheckTest::Row(all.unwrap_or(lit(true))))
            }
            CheckKind::AcceptedValues { column: name, values } => {
                let data_type = column(name)?;
                let zone: Arc<str> = self.zone.into();
                let mut list = Vec::new();
                for value in values {
                    match types::parse_value(value, &data_type, &zone) {
                        Ok(value) => list.push(lit(value)),
                        Err(why) => {
                            return Err(vec![Fault::error("wrong_value", name.place.clone(), format!("`{}` can't have the value: {why}", name.value))]);
                        }
                    }
                }
                Ok(CheckTest::Row(ident(&name.value).in_list(list, false)))
            }
            CheckKind::Relationships { column: name, to_relation, to_column } => {
                let here = column(name)?;
                let there = self.target(to_relation, to_column)?;
                if let Some(there) = there
                    && datafusion::logical_expr::type_coercion::binary::comparison_coercion(&here, &there).is_none()
                {
                    let message = format!("`{}` is {}, and {}.{} is {}", name.value, types::sql_name(&here), to_relation.value, to_column.value, types::sql_name(&there));
                    return Err(vec![Fault::error("wrong_type", to_column.place.clone(), message)]);
                }
                Ok(CheckTest::Relationship {
                    column: name.value.clone(),
                    to_relation: to_relation.value.clone(),
                    to_column: to_column.value.clone(),
                })
            }
            CheckKind::Freshness { column: name, within } => {
                let data_type = column(name)?;
                if !matches!(data_type, DataType::Timestamp(_, _) | DataType::Date32) {
                    let message = format!("`{}` is {}, and freshness goes by a time", name.value, types::sql_name(&data_type));
                    return Err(vec![Fault::error("wrong_type", name.place.clone(), message)]);
                }
                let within_us = i64::try_from(within.as_micros()).unwrap_or(i64::MAX);
                Ok(CheckTest::Freshness { column: name.value.clone(), within_us })
            }
        }
    }

    /// The type of a related column; none where its relation has faults of its own.
    fn target(&self, relation: &Located<String>, to_column: &Located<String>) -> Result<Option<DataType>, Vec<Fault>> {
        if !self.relations.declared.contains(&relation.value) {
            let message = format!("there is no source or model `{}`", relation.value);
            let mut fault = Fault::error("unknown_relation", relation.place.clone(), message);
            if let Some(near) = nearest(&relation.value, self.relations.declared.iter().map(String::as_str)) {
                fault = fault.hint(format!("did you mean `{near}`?"));
            }
            return Err(vec![fault]);
        }
        match self.relations.schemas.get(&relation.value) {
            None => Ok(None),
            Some(schema) => column_type(&relation.value, schema, to_column).map(Some).map_err(|fault| vec![fault]),
        }
    }

    fn expression(&self, schema: &SchemaRef, sql: &SqlText) -> Result<Expr, Vec<Fault>> {
        let mut parsed = sql::parse_expression(sql).map_err(|fault| vec![fault])?;
        let mut faults = sql::bind_parameters(&mut parsed, sql, self.params);
        let schema = Arc::clone(schema).to_dfschema().map_err(|e| vec![sql_fault::fault(&e, &parsed, sql).fault])?;
        for _ in 0..FAULTS_PER_SQL {
            match self.plan_expression(parsed.clone(), &schema) {
                Ok(_) if !faults.is_empty() => break,
                Ok(expr) => return checked(expr, &schema, sql).map_err(|fault| vec![fault]),
                Err(error) => {
                    let found = sql_fault::fault(&error, &parsed, sql);
                    if faults.is_empty() || found.unknown_column.is_some() {
                        faults.push(found.fault);
                    }
                    if !found.unknown_column.is_some_and(|span| sql_fault::blank(&mut parsed, span)) {
                        break;
                    }
                }
            }
        }
        Err(faults)
    }

    fn plan_expression(&self, parsed: SqlExpr, schema: &DFSchema) -> datafusion::error::Result<Expr> {
        let expr = self.ctx.state().create_logical_expr_from_sql_expr(ExprWithAlias { expr: parsed, alias: None }, schema)?;
        // Types are checked as for a physical expression.
        self.ctx.create_physical_expr(expr.clone(), schema)?;
        Ok(expr)
    }
}

fn checked(expr: Expr, schema: &DFSchema, sql: &SqlText) -> Result<Expr, Fault> {
    let place = sql_fault::whole(sql);
    match expr.get_type(schema) {
        Ok(DataType::Boolean) => Ok(expr),
        Ok(other) => Err(Fault::error("wrong_type", place, format!("a rule is true or false, and this is {}", types::sql_name(&other)))),
        Err(error) => Err(Fault::error("wrong_type", place, error.strip_backtrace())),
    }
}

/// The type of a column, or the fault that there is none.
pub(super) fn column_type(of: &str, schema: &SchemaRef, column: &Located<String>) -> Result<DataType, Fault> {
    if let Ok(field) = schema.field_with_name(&column.value) {
        return Ok(field.data_type().clone());
    }
    let names = schema.fields().iter().map(|f| f.name().as_str());
    let mut fault = Fault::error("unknown_column", column.place.clone(), format!("`{of}` has no column `{}`", column.value));
    fault = match nearest(&column.value, names.clone()) {
        Some(near) => fault.hint(format!("did you mean `{near}`?")),
        None => fault.hint(format!("its columns are {}", names.collect::<Vec<_>>().join(", "))),
    };
    Err(fault)
}
