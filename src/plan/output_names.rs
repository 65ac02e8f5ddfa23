//! Names of a SELECT's result in its HAVING and ORDER BY. Inside an expression a name is first of all a column of what is read, as in
//! `SELECT k, sum(n) AS n … ORDER BY sum(n)`; the engine takes the result's. Works on syntax trees; knows no schema.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, Ident, OrderBy, OrderByKind, Query, Select, SelectItem, TableAlias, TableFactor, VisitMut,
    VisitorMut,
};

use super::sql_text::folded;
use super::windows::each_select;

/// What a derived table without a name is called where it needs one.
const UNNAMED: &str = "unnamed_subquery";

/// Writes such names out, in every SELECT of `query`, as far as the FROM says whose they are.
pub fn keep_to_inputs(query: &mut Query, is_aggregate: &dyn Fn(&str) -> bool) {
    let _: ControlFlow<()> = query.visit(&mut Selects { is_aggregate });
}

struct Selects<'a> {
    is_aggregate: &'a dyn Fn(&str) -> bool,
}

impl VisitorMut for Selects<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        each_select(query, &mut |select, order| {
            let aliases = aliases(select);
            if aliases.is_empty() {
                return;
            }
            if select.having.as_mut().is_some_and(|having| names_any(having, &aliases)) {
                name_derived(select);
            }
            if let Some(OrderBy { kind: OrderByKind::Expressions(exprs), .. }) = order {
                let relation = only_relation(select);
                for item in exprs {
                    self.order(&mut item.expr, &aliases, relation.as_ref());
                }
            }
        });
        ControlFlow::Continue(())
    }
}

/// Names that the result gives, each with the text of what it stands for.
fn aliases(select: &Select) -> Vec<(Ident, String)> {
    let named = |item: &SelectItem| match item {
        SelectItem::ExprWithAlias { expr, alias } => Some((alias.clone(), expr.to_string())),
        _ => None,
    };
    select.projection.iter().filter_map(named).collect()
}

fn is_named(name: &Ident, aliases: &[(Ident, String)]) -> bool {
    aliases.iter().any(|(alias, _)| folded(alias) == folded(name))
}

fn names_any(expr: &mut Expr, aliases: &[(Ident, String)]) -> bool {
    let mut names = Names { aliases, relation: None, has_any: false };
    let _ = expr.visit(&mut names);
    names.has_any
}

impl Selects<'_> {
    fn order(&self, expr: &mut Expr, aliases: &[(Ident, String)], relation: Option<&Ident>) {
        if matches!(expr, Expr::Identifier(_)) {
            return;
        }
        // What the result has is the same under its name, if that is but one's.
        let text = expr.to_string();
        let same = aliases.iter().find(|(_, of)| *of == text).map(|(alias, _)| alias);
        let is_own = |alias: &&Ident| aliases.iter().filter(|(other, _)| folded(other) == folded(alias)).count() == 1;
        if let Some(alias) = same.filter(is_own) {
            *expr = Expr::Identifier(alias.clone());
            return;
        }
        let _ = expr.visit(&mut Aggregates { is_aggregate: self.is_aggregate, aliases, relation });
    }
}

/// Whatever an aggregate is of is read: its names become columns of the only relation.
struct Aggregates<'a> {
    is_aggregate: &'a dyn Fn(&str) -> bool,
    aliases: &'a [(Ident, String)],
    relation: Option<&'a Ident>,
}

impl VisitorMut for Aggregates<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr
            && let Some(relation) = self.relation
            && is_call(function, self.is_aggregate)
        {
            let mut names = Names { aliases: self.aliases, relation: Some(relation), has_any: false };
            let _ = function.args.visit(&mut names);
            let _ = function.filter.visit(&mut names);
        }
        ControlFlow::Continue(())
    }
}

fn is_call(function: &Function, is_aggregate: &dyn Fn(&str) -> bool) -> bool {
    function.over.is_none() && is_aggregate(&function.name.to_string().to_lowercase())
}

/// Finds names of the result, and makes columns of `relation` of them.
struct Names<'a> {
    aliases: &'a [(Ident, String)],
    relation: Option<&'a Ident>,
    has_any: bool,
}

impl VisitorMut for Names<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Identifier(name) = expr
            && is_named(name, self.aliases)
        {
            self.has_any = true;
            if let Some(relation) = self.relation {
                *expr = Expr::CompoundIdentifier(vec![relation.clone(), name.clone()]);
            }
        }
        ControlFlow::Continue(())
    }
}

/// The name of all that is read, where it is one relation.
fn only_relation(select: &Select) -> Option<Ident> {
    let [from] = select.from.as_slice() else { return None };
    if !from.joins.is_empty() {
        return None;
    }
    match &from.relation {
        TableFactor::Table { alias: Some(alias), .. } | TableFactor::Derived { alias: Some(alias), .. } => {
            Some(alias.name.clone())
        }
        TableFactor::Table { name, args: None, .. } => name.0.last()?.as_ident().cloned(),
        _ => None,
    }
}

/// Gives derived tables names, so that their columns have one that none of the result's is.
fn name_derived(select: &mut Select) {
    let joins = select.from.iter_mut().flat_map(|from| {
        let joined = from.joins.iter_mut().map(|join| &mut join.relation);
        std::iter::once(&mut from.relation).chain(joined)
    });
    for (number, factor) in joins.enumerate() {
        if let TableFactor::Derived { alias: alias @ None, .. } = factor {
            let name = Ident::new(format!("{UNNAMED}{number}"));
            *alias = Some(TableAlias { explicit: true, name, columns: vec![], at: None });
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::ast::Statement;
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    #[test]
    fn names_inside_of_expressions_are_the_inputs() {
        let cases = [
            (
                "SELECT k, sum(n) AS n FROM t GROUP BY k ORDER BY sum(n) DESC",
                "SELECT k, sum(n) AS n FROM t GROUP BY k ORDER BY n DESC",
            ),
            (
                "SELECT k, count(*) AS n FROM s.t GROUP BY k ORDER BY sum(n) + 1",
                "SELECT k, count(*) AS n FROM s.t GROUP BY k ORDER BY sum(t.n) + 1",
            ),
            (
                "SELECT k, count(*) AS n FROM t AS x ORDER BY max(n + m)",
                "SELECT k, count(*) AS n FROM t AS x ORDER BY max(x.n + m)",
            ),
            (
                "SELECT k, count(*) AS n FROM t JOIN u ON true ORDER BY sum(n)",
                "SELECT k, count(*) AS n FROM t JOIN u ON true ORDER BY sum(n)",
            ),
            ("SELECT k, n + 1 AS n FROM t ORDER BY n, abs(n)", "SELECT k, n + 1 AS n FROM t ORDER BY n, abs(n)"),
            (
                "SELECT -n AS n FROM (SELECT 1 AS n) GROUP BY n HAVING n > 0",
                "SELECT -n AS n FROM (SELECT 1 AS n) AS unnamed_subquery0 GROUP BY n HAVING n > 0",
            ),
            (
                "SELECT -n AS m FROM (SELECT 1 AS n) GROUP BY n HAVING n > 0",
                "SELECT -n AS m FROM (SELECT 1 AS n) GROUP BY n HAVING n > 0",
            ),
        ];
        for (sql, expected) in cases {
            let mut statements = Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap();
            let Some(Statement::Query(query)) = statements.first_mut() else { panic!("{sql}") };
            keep_to_inputs(query, &|name| ["sum", "max", "count"].contains(&name));
            assert_eq!(query.to_string(), expected);
        }
    }
}
