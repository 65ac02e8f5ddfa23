//! Hidden columns of sources: there when named, never in `*`. Works on syntax trees; knows no plan.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    ExcludeSelectItem, Expr, Ident, JoinConstraint, JoinOperator, ObjectName, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, Spanned, TableFactor, VisitMut, VisitorMut, WildcardAdditionalOptions,
    visit_expressions,
};

use super::HIDDEN_COLUMNS;
use super::sql_text::folded;
use crate::spec::fault::Fault;
use crate::spec::types::SqlText;

/// The hidden columns that `query` names, in their order.
pub fn named_hidden(query: &Query) -> Vec<&'static str> {
    let mut named = BTreeSet::new();
    let _ = visit_expressions(query, |expr| {
        let parts = match expr {
            Expr::Identifier(ident) => std::slice::from_ref(ident),
            Expr::CompoundIdentifier(parts) => parts.as_slice(),
            _ => &[],
        };
        if let Some(last) = parts.last() {
            let name = folded(last);
            named.extend(HIDDEN_COLUMNS.iter().position(|hidden| *hidden == name));
        }
        ControlFlow::<()>::Continue(())
    });
    named.into_iter().map(|at| HIDDEN_COLUMNS[at]).collect()
}

/// Takes the `hidden` columns, which the tables that are sources now have, out of every `*` over a source.
pub fn hide(
    query: &mut Query,
    sql: &SqlText,
    hidden: &[&'static str],
    is_source: &dyn Fn(&ObjectName) -> bool,
) -> Vec<Fault> {
    let mut hider = Hider { sql, hidden, is_source, faults: Vec::new() };
    if !hidden.is_empty() {
        let _: ControlFlow<()> = query.visit(&mut hider);
    }
    hider.faults
}

struct Hider<'a> {
    sql: &'a SqlText,
    hidden: &'a [&'static str],
    is_source: &'a dyn Fn(&ObjectName) -> bool,
    faults: Vec<Fault>,
}

/// A table of a FROM clause as `*` sees it.
struct Factor {
    /// What its columns are qualified by; none for a subquery without a name.
    qualifier: Option<ObjectName>,
    is_source: bool,
    /// Columns of USING: shown once, by the table before.
    shared: Vec<Ident>,
}

impl VisitorMut for Hider<'_> {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let factors = self.factors(select);
        if factors.iter().any(|factor| factor.is_source) {
            let items = std::mem::take(&mut select.projection);
            for item in items {
                self.item(item, &factors, &mut select.projection);
            }
        }
        ControlFlow::Continue(())
    }
}

impl Hider<'_> {
    fn item(&self, item: SelectItem, factors: &[Factor], out: &mut Vec<SelectItem>) {
        match item {
            SelectItem::Wildcard(options) => {
                let plain = options.opt_exclude.is_none() && options.opt_except.is_none();
                let all_named = factors.iter().all(|factor| factor.qualifier.is_some());
                if factors.len() == 1 || !plain || !all_named {
                    out.push(SelectItem::Wildcard(self.without(options, &[])));
                    return;
                }
                for factor in factors {
                    let Some(name) = factor.qualifier.clone() else { continue };
                    let options = if factor.is_source {
                        self.without(WildcardAdditionalOptions::default(), &factor.shared)
                    } else {
                        excluding(WildcardAdditionalOptions::default(), factor.shared.clone())
                    };
                    out.push(SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options));
                }
            }
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options) => {
                let of_source = factors.iter().any(|factor| {
                    let same = |q: &ObjectName| q.to_string().eq_ignore_ascii_case(&name.to_string());
                    factor.is_source && factor.qualifier.as_ref().is_some_and(same)
                });
                let options = if of_source { self.without(options, &[]) } else { options };
                out.push(SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options));
            }
            other => out.push(other),
        }
    }

    fn without(&self, options: WildcardAdditionalOptions, shared: &[Ident]) -> WildcardAdditionalOptions {
        let mut names: Vec<Ident> = self.hidden.iter().map(|name| Ident::new(*name)).collect();
        names.extend(shared.iter().cloned());
        excluding(options, names)
    }

    fn factors(&mut self, select: &Select) -> Vec<Factor> {
        let mut factors = Vec::new();
        for from in &select.from {
            self.factor(&from.relation, vec![], &mut factors);
            for join in &from.joins {
                let shared = match constraint(&join.join_operator) {
                    Some(JoinConstraint::Using(columns)) => {
                        columns.iter().filter_map(|name| name.0.last()?.as_ident().cloned()).collect()
                    }
                    Some(JoinConstraint::Natural) => {
                        let place = self.sql.place_of(join.relation.span());
                        let message = "a NATURAL JOIN would also join on the hidden columns that this query names";
                        self.faults.push(Fault::error("hidden_columns", place, message).hint("join with USING (…)"));
                        vec![]
                    }
                    _ => vec![],
                };
                self.factor(&join.relation, shared, &mut factors);
            }
        }
        factors
    }

    fn factor(&self, factor: &TableFactor, shared: Vec<Ident>, out: &mut Vec<Factor>) {
        match factor {
            TableFactor::Table { name, alias, args: None, .. } => {
                let qualifier = alias.as_ref().map_or_else(|| name.clone(), |a| ObjectName::from(vec![a.name.clone()]));
                out.push(Factor { qualifier: Some(qualifier), is_source: (self.is_source)(name), shared });
            }
            TableFactor::NestedJoin { table_with_joins, alias: None } => {
                self.factor(&table_with_joins.relation, shared, out);
                for join in &table_with_joins.joins {
                    self.factor(&join.relation, vec![], out);
                }
            }
            TableFactor::Derived { alias, .. } => {
                let qualifier = alias.as_ref().map(|a| ObjectName::from(vec![a.name.clone()]));
                out.push(Factor { qualifier, is_source: false, shared });
            }
            _ => out.push(Factor { qualifier: None, is_source: false, shared }),
        }
    }
}

fn excluding(mut options: WildcardAdditionalOptions, names: Vec<Ident>) -> WildcardAdditionalOptions {
    let mut all: Vec<ObjectName> = match options.opt_exclude.take() {
        Some(ExcludeSelectItem::Single(name)) => vec![name],
        Some(ExcludeSelectItem::Multiple(names)) => names,
        None => vec![],
    };
    let known: BTreeSet<String> = all.iter().map(|name| name.to_string()).collect();
    all.extend(names.into_iter().filter(|n| !known.contains(&n.value)).map(|n| ObjectName::from(vec![n])));
    if !all.is_empty() {
        options.opt_exclude = Some(ExcludeSelectItem::Multiple(all));
    }
    options
}

fn constraint(operator: &JoinOperator) -> Option<&JoinConstraint> {
    match operator {
        JoinOperator::Join(c)
        | JoinOperator::Inner(c)
        | JoinOperator::Left(c)
        | JoinOperator::LeftOuter(c)
        | JoinOperator::Right(c)
        | JoinOperator::RightOuter(c)
        | JoinOperator::FullOuter(c)
        | JoinOperator::CrossJoin(c)
        | JoinOperator::LeftSemi(c)
        | JoinOperator::RightSemi(c)
        | JoinOperator::LeftAnti(c)
        | JoinOperator::RightAnti(c) => Some(c),
        _ => None,
    }
}
