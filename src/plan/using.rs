//! What columns that joins share by USING stand for: of a RIGHT or FULL JOIN the engine takes the value of one side for them, and in
//! WHERE it doesn't know them. They become columns of their tables, or coalesce() of them. Works on syntax trees; knows no schema.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Distinct, ExcludeSelectItem, Expr, GroupByExpr, Ident, JoinConstraint, JoinOperator, ObjectName,
    OrderBy, OrderByKind, Query, ReplaceSelectElement, ReplaceSelectItem, Select, SelectItem,
    SelectItemQualifiedWildcardKind, Spanned, TableFactor, TableWithJoins, VisitMut, VisitorMut,
    WildcardAdditionalOptions,
};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::sql_text::folded;
use super::windows::{each_select, function};
use crate::spec::fault::Fault;
use crate::spec::types::SqlText;

/// Writes out what shared columns stand for, in every SELECT of `query`. Comes before time windows are rewritten, which take the
/// FROM away. Faults are joins whose shared columns can't be told.
pub fn share_columns(query: &mut Query, sql: &SqlText) -> Vec<Fault> {
    let mut sharer = Sharer { sql, faults: Vec::new() };
    let _: ControlFlow<()> = query.visit(&mut sharer);
    sharer.faults
}

struct Sharer<'a> {
    sql: &'a SqlText,
    faults: Vec<Fault>,
}

impl VisitorMut for Sharer<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        each_select(query, &mut |select, order| self.select(select, order));
        ControlFlow::Continue(())
    }
}

impl Sharer<'_> {
    fn select(&mut self, select: &mut Select, order: Option<&mut OrderBy>) {
        let shows_all = select.projection.iter().any(|item| matches!(item, SelectItem::Wildcard(_)));
        let joins = || select.from.iter().flat_map(|from| &from.joins);
        if !joins().any(|join| shared(&join.join_operator).is_some()) && !select.from.iter().any(has_nested) {
            return;
        }
        let padded = select.from.iter().find_map(|from| padded(from, shows_all));
        let scope = match select.from.as_mut_slice() {
            [from] => Scope::of(from),
            _ => None,
        };
        let is_told = scope.is_some_and(|scope| scope.rewrite(select, order));
        if let Some(span) = padded.filter(|_| !is_told) {
            let message = "which columns this join shares can't be told here";
            let fault = Fault::error("unsupported_sql", self.sql.place_of(span), message);
            self.faults.push(fault.hint("join with ON, and write `coalesce(a.x, b.x)` for a column that both have"));
        }
    }
}

/// How a join goes about rows without a partner.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Inner,
    Left,
    Right,
    Full,
    /// Only columns of the left side come out.
    LeftOnly,
}

fn kind(operator: &JoinOperator) -> Option<Kind> {
    Some(match operator {
        JoinOperator::Join(_) | JoinOperator::Inner(_) | JoinOperator::CrossJoin(_) | JoinOperator::StraightJoin(_) => {
            Kind::Inner
        }
        JoinOperator::Left(_) | JoinOperator::LeftOuter(_) => Kind::Left,
        JoinOperator::Right(_) | JoinOperator::RightOuter(_) => Kind::Right,
        JoinOperator::FullOuter(_) => Kind::Full,
        JoinOperator::Semi(_) | JoinOperator::LeftSemi(_) | JoinOperator::Anti(_) | JoinOperator::LeftAnti(_) => {
            Kind::LeftOnly
        }
        _ => return None,
    })
}

fn constraint(operator: &mut JoinOperator) -> Option<&mut JoinConstraint> {
    match operator {
        JoinOperator::Join(constraint)
        | JoinOperator::Inner(constraint)
        | JoinOperator::CrossJoin(constraint)
        | JoinOperator::StraightJoin(constraint)
        | JoinOperator::Left(constraint)
        | JoinOperator::LeftOuter(constraint)
        | JoinOperator::Right(constraint)
        | JoinOperator::RightOuter(constraint)
        | JoinOperator::FullOuter(constraint)
        | JoinOperator::Semi(constraint)
        | JoinOperator::LeftSemi(constraint)
        | JoinOperator::Anti(constraint)
        | JoinOperator::LeftAnti(constraint) => Some(constraint),
        _ => None,
    }
}

/// Where a join says which columns it shares; an empty span of a NATURAL one.
fn shared(operator: &JoinOperator) -> Option<Span> {
    let mut operator = operator.clone();
    match constraint(&mut operator)? {
        JoinConstraint::Using(names) => names.first().map(Spanned::span),
        JoinConstraint::Natural => Some(Span::empty()),
        _ => None,
    }
}

fn has_nested(from: &TableWithJoins) -> bool {
    let is_nested = |factor: &TableFactor| matches!(factor, TableFactor::NestedJoin { .. });
    is_nested(&from.relation) || from.joins.iter().any(|join| is_nested(&join.relation))
}

/// A join that shares columns and pads rows, so that one side alone doesn't say what they are: of a LEFT JOIN the engine shows
/// either side's in `*`.
fn padded(from: &TableWithJoins, shows_all: bool) -> Option<Span> {
    let nested = |factor: &TableFactor| match factor {
        TableFactor::NestedJoin { table_with_joins, .. } => padded(table_with_joins, shows_all),
        _ => None,
    };
    nested(&from.relation).or_else(|| {
        from.joins.iter().find_map(|join| {
            let pads = match kind(&join.join_operator) {
                Some(Kind::Right | Kind::Full) => true,
                Some(Kind::Left) => shows_all,
                _ => false,
            };
            let span = shared(&join.join_operator).filter(|_| pads);
            span.map(|span| if span == Span::empty() { join.relation.span() } else { span })
                .or_else(|| nested(&join.relation))
        })
    })
}

/// A table of the FROM, as `*` shows it.
struct Factor {
    /// What its columns are qualified by.
    qualifier: Option<Vec<Ident>>,
    is_shown: bool,
    /// Columns that a table before it shows.
    elsewhere: Vec<Ident>,
}

/// A shared column.
struct Shared {
    column: Ident,
    /// The table that shows it.
    at: usize,
    /// The first of these that isn't null is its value.
    values: Vec<Expr>,
    /// How many tables share it.
    tables: usize,
}

impl Shared {
    /// Whether the engine takes it for the same, save in WHERE.
    fn is_plain(&self, factors: &[Factor]) -> bool {
        let own = factors.get(self.at).and_then(|factor| factor.column(&self.column));
        self.tables <= 2 && self.values.iter().eq(own.iter())
    }

    /// Its value, as if it stood at `span`.
    fn value(&self, span: Span) -> Expr {
        let mut values = self.values.clone();
        for value in &mut values {
            if let Expr::CompoundIdentifier(parts) = value {
                parts.iter_mut().for_each(|part| part.span = span);
            }
        }
        match (values.len(), values.pop()) {
            (1, Some(only)) => only,
            (_, last) => function("coalesce", values.into_iter().chain(last).collect()),
        }
    }
}

/// The tables of a FROM and what they share.
struct Scope {
    factors: Vec<Factor>,
    shared: Vec<Shared>,
    /// Whether `*` of the engine shows the wrong column of several.
    pads: bool,
}

impl Factor {
    fn of(factor: &TableFactor) -> Self {
        let qualifier = match factor {
            TableFactor::Table { alias: Some(alias), .. }
            | TableFactor::Derived { alias: Some(alias), .. }
            | TableFactor::TableFunction { alias: Some(alias), .. }
            | TableFactor::UNNEST { alias: Some(alias), .. }
            | TableFactor::Function { alias: Some(alias), .. } => Some(vec![alias.name.clone()]),
            TableFactor::Table { name, args: None, .. } => {
                name.0.iter().map(|part| part.as_ident().cloned()).collect::<Option<Vec<_>>>()
            }
            _ => None,
        };
        Self { qualifier, is_shown: true, elsewhere: Vec::new() }
    }

    fn column(&self, column: &Ident) -> Option<Expr> {
        let qualifier = self.qualifier.as_ref()?;
        Some(Expr::CompoundIdentifier(qualifier.iter().chain([column]).cloned().collect()))
    }
}

impl Scope {
    /// Reads a FROM, and has each join in it compare what its left side shares. None where that can't be told.
    fn of(from: &mut TableWithJoins) -> Option<Self> {
        if has_nested(from) {
            return None;
        }
        let mut scope = Self { factors: vec![Factor::of(&from.relation)], shared: Vec::new(), pads: false };
        for join in &mut from.joins {
            scope.write_out(&mut join.relation, true, &[]);
            let kind = kind(&join.join_operator)?;
            let is_shown = kind != Kind::LeftOnly;
            scope.factors.push(Factor { is_shown, ..Factor::of(&join.relation) });
            let constraint = constraint(&mut join.join_operator)?;
            match constraint {
                JoinConstraint::On(condition) => scope.write_out(condition, true, &[]),
                JoinConstraint::Using(names) => {
                    if let Some(condition) = scope.share(names, kind)? {
                        *constraint = JoinConstraint::On(condition);
                    }
                }
                JoinConstraint::Natural => return None,
                JoinConstraint::None => {}
            }
        }
        Some(scope)
    }

    /// Has the newest table share columns with those before it. The condition of the join, where the engine would compare another
    /// column than the shared one.
    fn share(&mut self, names: &[ObjectName], kind: Kind) -> Option<Option<Expr>> {
        let newest = self.factors.len() - 1;
        let mut conditions = Vec::new();
        let mut is_plain = true;
        for name in names {
            let column = name.0.last()?.as_ident()?.clone();
            let theirs = self.factors[newest].column(&column)?;
            let known = self.shared.iter().position(|shared| folded(&shared.column) == folded(&column));
            let known = match known {
                Some(known) => known,
                // Of several tables any may have it.
                None if newest > 1 => return None,
                None => {
                    let values = vec![self.factors[0].column(&column)?];
                    self.shared.push(Shared { column: column.clone(), at: 0, values, tables: 1 });
                    self.shared.len() - 1
                }
            };
            let shared = &mut self.shared[known];
            is_plain &= shared.is_plain(&self.factors);
            let ours = Box::new(shared.value(column.span));
            let right = Box::new(theirs.clone());
            conditions.push(Expr::BinaryOp { left: ours, op: BinaryOperator::Eq, right });
            match kind {
                Kind::Inner | Kind::Left => shared.tables += 1,
                Kind::Right => (shared.values, shared.tables) = (vec![theirs], shared.tables + 1),
                Kind::Full => {
                    shared.values.push(theirs);
                    shared.tables += 1;
                }
                Kind::LeftOnly => {}
            }
            self.pads |= matches!(kind, Kind::Left | Kind::Right | Kind::Full) || shared.tables > 2;
            self.factors[newest].elsewhere.push(column);
        }
        let and = |left: Expr, right: Expr| {
            let (left, right) = (Box::new(left), Box::new(right));
            Expr::BinaryOp { left, op: BinaryOperator::And, right }
        };
        Some(if is_plain { None } else { conditions.into_iter().reduce(and) })
    }

    /// Writes out the shared columns of `part`, all of them or those that the engine takes for others, but for names of the result.
    fn write_out<V: VisitMut>(&self, part: &mut V, all: bool, result: &[String]) {
        let is_written =
            |shared: &&Shared| (all || !shared.is_plain(&self.factors)) && !result.contains(&folded(&shared.column));
        let shared: Vec<&Shared> = self.shared.iter().filter(is_written).collect();
        if !shared.is_empty() {
            let _: ControlFlow<()> = part.visit(&mut Writer { shared, depth: 0, parameters: Vec::new() });
        }
    }

    /// Writes out the shared columns of a SELECT over these tables; false where `*` can't be.
    fn rewrite(&self, select: &mut Select, order: Option<&mut OrderBy>) -> bool {
        let Some(items) = self.items(&select.projection) else { return false };
        let named = |item: &SelectItem| match item {
            SelectItem::ExprWithAlias { alias, .. } => Some(folded(alias)),
            _ => None,
        };
        let aliases: Vec<String> = select.projection.iter().filter_map(named).collect();
        select.projection = items;
        if let Some(Distinct::On(columns)) = &mut select.distinct {
            self.write_out(columns, false, &[]);
        }
        self.write_out(&mut select.selection, true, &[]);
        if let GroupByExpr::Expressions(columns, _) = &mut select.group_by {
            self.write_out(columns, false, &[]);
        }
        // Here a name of the result comes first.
        self.write_out(&mut select.having, false, &aliases);
        self.write_out(&mut select.qualify, false, &aliases);
        self.write_out(&mut select.named_window, false, &[]);
        if let Some(OrderBy { kind: OrderByKind::Expressions(exprs), .. }) = order {
            let shown = |shared: &Shared| select.projection.iter().any(|item| shows(item, &shared.column));
            let shown = self.shared.iter().filter(|shared| shown(shared)).map(|shared| folded(&shared.column));
            let result: Vec<String> = aliases.into_iter().chain(shown).collect();
            exprs.iter_mut().for_each(|order| self.write_out(&mut order.expr, false, &result));
        }
        true
    }

    /// The items of a SELECT with shared columns written out.
    fn items(&self, items: &[SelectItem]) -> Option<Vec<SelectItem>> {
        let mut out = Vec::new();
        for item in items {
            match item {
                SelectItem::Wildcard(options) if self.pads => {
                    if *options == WildcardAdditionalOptions::default() {
                        out.extend(self.all()?);
                    } else {
                        out.push(SelectItem::Wildcard(self.replaced(options.clone())?));
                    }
                }
                SelectItem::UnnamedExpr(Expr::Identifier(name)) => {
                    let mut expr = Expr::Identifier(name.clone());
                    self.write_out(&mut expr, false, &[]);
                    out.push(match expr {
                        Expr::Function(_) => SelectItem::ExprWithAlias { expr, alias: name.clone() },
                        expr => SelectItem::UnnamedExpr(expr),
                    });
                }
                other => {
                    let mut other = other.clone();
                    self.write_out(&mut other, false, &[]);
                    out.push(other);
                }
            }
        }
        Some(out)
    }

    /// `*`: a shared column once, where its first table shows it.
    fn all(&self) -> Option<Vec<SelectItem>> {
        let shown = self.factors.iter().enumerate().filter(|(_, factor)| factor.is_shown);
        shown.map(|(at, factor)| self.all_of(at, factor)).collect()
    }

    fn all_of(&self, at: usize, factor: &Factor) -> Option<SelectItem> {
        let mut options = WildcardAdditionalOptions::default();
        let elsewhere: Vec<ObjectName> =
            factor.elsewhere.iter().map(|column| ObjectName::from(vec![column.clone()])).collect();
        if !elsewhere.is_empty() {
            options.opt_exclude = Some(ExcludeSelectItem::Multiple(elsewhere));
        }
        let others = self.shared.iter().filter(|shared| {
            let own = factor.column(&shared.column);
            shared.at == at && !shared.values.iter().eq(own.iter())
        });
        replace(&mut options, others);
        let name = ObjectName::from(factor.qualifier.clone()?);
        Some(SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), options))
    }

    /// `*` with options of its own: the engine shows a shared column once, if of either table.
    fn replaced(&self, mut options: WildcardAdditionalOptions) -> Option<WildcardAdditionalOptions> {
        if options.opt_rename.is_some() || self.shared.iter().any(|shared| shared.tables > 2) {
            return None;
        }
        let named = format!("{options}").to_lowercase();
        let is_named = |shared: &&Shared| named.contains(&shared.column.value.to_lowercase());
        let others: Vec<&Shared> = self.shared.iter().filter(|shared| !is_named(shared)).collect();
        replace(&mut options, others.into_iter());
        Some(options)
    }
}

fn replace<'a>(options: &mut WildcardAdditionalOptions, shared: impl Iterator<Item = &'a Shared>) {
    let replaced = shared.map(|shared| {
        let (expr, column_name) = (shared.value(shared.column.span), shared.column.clone());
        Box::new(ReplaceSelectElement { expr, column_name, as_keyword: true })
    });
    let before = options.opt_replace.take().map(|replaced| replaced.items).unwrap_or_default();
    let items: Vec<Box<ReplaceSelectElement>> = before.into_iter().chain(replaced).collect();
    options.opt_replace = (!items.is_empty()).then_some(ReplaceSelectItem { items });
}

/// Whether an item of the result is named as `column`.
fn shows(item: &SelectItem, column: &Ident) -> bool {
    match item {
        SelectItem::UnnamedExpr(Expr::Identifier(name)) => folded(name) == folded(column),
        SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) => {
            parts.last().is_some_and(|name| folded(name) == folded(column))
        }
        SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..) => true,
        _ => false,
    }
}

/// Writes shared columns out; not in subqueries, where the name may be another's, and not where it is a parameter.
struct Writer<'a> {
    shared: Vec<&'a Shared>,
    depth: usize,
    parameters: Vec<String>,
}

impl VisitorMut for Writer<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Lambda(lambda) = expr {
            self.parameters.extend(lambda.params.iter().map(|parameter| folded(&parameter.name)));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Lambda(lambda) => self.parameters.truncate(self.parameters.len() - lambda.params.len()),
            Expr::Identifier(name) if self.depth == 0 && !self.parameters.contains(&folded(name)) => {
                let span = name.span;
                if let Some(shared) = self.shared.iter().find(|shared| folded(&shared.column) == folded(name)) {
                    *expr = shared.value(span);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}
