//! Rows that a model hands on as they came: their place in the source is their key. Works on syntax trees; knows no plan.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, Ident, ObjectName, Query, Select, SelectItem, SetExpr, TableFactor, visit_expressions,
};

use crate::spec::types::{ConnectorSpec, KafkaSpec, MessageRelation, SourceSpec};

/// Has a query that shows each row of one source once, `SELECT * FROM lines` and the like, show its place too, and gives the
/// columns of that: file and row, or partition and offset. None, and the query as it was, where the rows are others.
pub fn with_place<'a>(
    query: &mut Query,
    source_of: &dyn Fn(&ObjectName) -> Option<&'a SourceSpec>,
) -> Option<[&'static str; 2]> {
    let is_plain = query.with.is_none() && query.limit_clause.is_none() && query.fetch.is_none();
    let SetExpr::Select(select) = query.body.as_mut() else { return None };
    if !is_plain || !hands_rows_on(select) {
        return None;
    }
    let [from] = select.from.as_slice() else { return None };
    let TableFactor::Table { name, args: None, .. } = &from.relation else { return None };
    let place = match &source_of(name)?.connector {
        ConnectorSpec::Files(_) => ["_source_file", "_source_row"],
        ConnectorSpec::Kafka(KafkaSpec { relation: MessageRelation::Append, .. }) => ["_partition", "_offset"],
        // The last message of a key is elsewhere each time.
        ConnectorSpec::Kafka(_) => return None,
    };
    let shown = |column: &str| {
        let is =
            |item: &SelectItem| matches!(item, SelectItem::UnnamedExpr(Expr::Identifier(name)) if name.value == column);
        select.projection.iter().any(is)
    };
    let missing: Vec<&str> = place.into_iter().filter(|column| !shown(column)).collect();
    let items = missing.into_iter().map(|column| SelectItem::UnnamedExpr(Expr::Identifier(Ident::new(column))));
    select.projection.extend(items);
    Some(place)
}

/// Whether each row comes out once: nothing is grouped, joined, unnested or left out by what other rows hold.
fn hands_rows_on(select: &Select) -> bool {
    let calls = select.projection.iter().any(|item| {
        let found = visit_expressions(item, |expr| match expr {
            // An aggregate, a window and unnest are calls, too.
            Expr::Function(_) | Expr::Subquery(_) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        found.is_break()
    });
    let groups = !matches!(&select.group_by, GroupByExpr::Expressions(by, _) if by.is_empty());
    let joins = select.from.iter().any(|from| !from.joins.is_empty());
    let others = select.distinct.is_some()
        || select.having.is_some()
        || select.qualify.is_some()
        || select.top.is_some()
        || !select.lateral_views.is_empty();
    !calls && !groups && !joins && !others
}
