//! Random SQL over the relations of [`super::data::SMALL`]. Every name is made unique, every output column named `c0…`.

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What a column holds, as far as expressions care.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Big,
    Int,
    Text,
    Decimal,
    Double,
    /// A double whose sums hang on the order of rows.
    Inexact,
    Time,
    Bool,
    /// Lists and all else that is only shown.
    Opaque,
}

use Kind::{Big, Bool, Decimal, Double, Inexact, Int, Opaque, Text, Time};

#[derive(Clone, Debug)]
struct Col {
    /// As expressions name it.
    name: String,
    kind: Kind,
}

/// A FROM clause and the columns that it gives.
struct From {
    sql: String,
    cols: Vec<Col>,
}

/// A query and the kinds of its columns `c0…`.
#[derive(Clone)]
struct Query {
    sql: String,
    kinds: Vec<Kind>,
}

/// A random query; at times two or three, with semicolons between them, the later ones over the earlier.
pub fn random_sql(seed: u64) -> String {
    let mut writer = Writer { rng: ChaCha8Rng::seed_from_u64(seed), names: 0, models: vec![] };
    let models = if writer.one_in(8) { writer.rng.random_range(2..4) } else { 1 };
    let mut all = Vec::new();
    for _ in 0..models {
        let query = writer.query(2);
        all.push(query.sql.clone());
        writer.models.push(query);
    }
    all.join("; ")
}

struct Writer {
    rng: ChaCha8Rng,
    names: usize,
    /// Models so far, `m1` first.
    models: Vec<Query>,
}

const A: &[(&str, Kind)] =
    &[("k", Big), ("g", Text), ("v", Decimal), ("n", Int), ("f", Double), ("t", Time), ("ok", Bool)];
const B: &[(&str, Kind)] = &[("k", Big), ("h", Text), ("w", Big)];
const C: &[(&str, Kind)] = &[("h", Text), ("x", Decimal)];

impl Writer {
    fn one_in(&mut self, n: u32) -> bool {
        self.rng.random_ratio(1, n)
    }

    fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of.choose(&mut self.rng).expect("a choice").clone()
    }

    fn alias(&mut self) -> String {
        self.names += 1;
        format!("q{}", self.names)
    }

    fn query(&mut self, depth: usize) -> Query {
        match self.rng.random_range(0..12) {
            0..3 => self.flat(depth, None),
            3..8 => self.aggregate(depth),
            8..10 => self.window(depth),
            10 => self.set_operation(depth),
            _ => self.distinct(depth),
        }
    }

    /// `SELECT … FROM … WHERE …`, of these kinds if given.
    fn flat(&mut self, depth: usize, kinds: Option<&[Kind]>) -> Query {
        let from = self.from(depth);
        let kinds = match kinds {
            Some(kinds) => kinds.to_vec(),
            None => {
                let width = self.rng.random_range(1..5);
                (0..width).map(|_| self.pick(&from.cols).kind).collect()
            }
        };
        let exprs = kinds.iter().map(|kind| self.scalar(&from.cols, *kind, 2)).collect::<Vec<_>>();
        let filter = self.filter(&from.cols, depth);
        Query { sql: format!("SELECT {} FROM {}{filter}", named(&exprs), from.sql), kinds }
    }

    fn distinct(&mut self, depth: usize) -> Query {
        let query = self.flat(depth, None);
        Query { sql: query.sql.replacen("SELECT ", "SELECT DISTINCT ", 1), ..query }
    }

    fn set_operation(&mut self, depth: usize) -> Query {
        let left = self.flat(depth.saturating_sub(1), None);
        let right = self.flat(depth.saturating_sub(1), Some(&left.kinds));
        let operation = self.pick(&["UNION ALL", "UNION ALL", "UNION", "INTERSECT", "EXCEPT", "EXCEPT ALL"]);
        Query { sql: format!("{} {operation} {}", left.sql, right.sql), kinds: left.kinds }
    }

    fn aggregate(&mut self, depth: usize) -> Query {
        let from = self.from(depth);
        let filter = self.filter(&from.cols, depth);
        let groups = self.pick(&[0, 1, 1, 1, 2, 2]);
        let (mut exprs, mut kinds) = (Vec::new(), Vec::new());
        for _ in 0..groups {
            let kind = self.pick(&from.cols).kind;
            exprs.push(self.scalar(&from.cols, kind, 1));
            kinds.push(kind);
        }
        let by = (1..=groups).map(|at| at.to_string()).collect::<Vec<_>>();
        let grouped = exprs.clone();
        for _ in 0..self.rng.random_range(1..4) {
            let (expr, kind) = self.aggregate_call(&from.cols);
            exprs.push(expr);
            kinds.push(kind);
        }
        let mut sql = format!("SELECT {} FROM {}{filter}", named(&exprs), from.sql);
        if groups > 0 {
            sql += &format!(" GROUP BY {}", by.join(", "));
        }
        if self.one_in(4) && grouped.iter().all(|expr| !expr.is_empty()) {
            let having = self.pick(&["count(*) > 1", "count(*) = 2", "count(*) < 3 OR count(*) > 4"]);
            sql += &format!(" HAVING {having}");
        }
        Query { sql, kinds }
    }

    fn aggregate_call(&mut self, cols: &[Col]) -> (String, Kind) {
        let filter = match self.one_in(4) {
            true => format!(" FILTER (WHERE {})", self.predicate(cols, 1)),
            false => String::new(),
        };
        let kind = self.pick(cols).kind;
        let of = self.scalar(cols, kind, 1);
        let exact = matches!(kind, Big | Int | Decimal | Double);
        let (call, result) = match self.rng.random_range(0..16) {
            0 => ("count(*)".to_owned(), Big),
            1 => (format!("count({of})"), Big),
            2 | 3 if kind != Opaque && kind != Inexact => (format!("count(DISTINCT {of})"), Big),
            4..7 if exact => {
                let result = if kind == Int { Big } else { kind };
                (format!("sum({of})"), result)
            }
            7 | 8 if exact => (format!("avg({of})"), if kind == Decimal { Decimal } else { Inexact }),
            9 | 10 if kind != Opaque && kind != Bool => {
                let function = self.pick(&["min", "max"]);
                (format!("{function}({of})"), kind)
            }
            11 => {
                let condition = self.predicate(cols, 1);
                let function = self.pick(&["bool_and", "bool_or"]);
                (format!("{function}({condition})"), Bool)
            }
            12 if kind != Opaque => (format!("array_agg({of})"), Opaque),
            13 if exact && kind != Double => (format!("sum(DISTINCT {of})"), if kind == Int { Big } else { kind }),
            14 if matches!(kind, Big | Int) => {
                let function = self.pick(&["bit_and", "bit_or", "bit_xor"]);
                (format!("{function}({of})"), kind)
            }
            15 if kind != Opaque => {
                let order = self.pick(cols);
                match order.kind {
                    Opaque => ("count(*)".to_owned(), Big),
                    _ => {
                        let function = self.pick(&["first_value", "last_value"]);
                        (format!("{function}({of} ORDER BY {})", order.name), kind)
                    }
                }
            }
            _ => ("count(*)".to_owned(), Big),
        };
        (format!("{call}{filter}"), result)
    }

    fn window(&mut self, depth: usize) -> Query {
        let from = self.from(depth.saturating_sub(1));
        let filter = self.filter(&from.cols, 0);
        let shown: Vec<Col> = from.cols.iter().filter(|col| col.kind != Opaque).cloned().collect();
        if shown.is_empty() {
            return self.flat(depth, None);
        }
        let (mut exprs, mut kinds) = (Vec::new(), Vec::new());
        for _ in 0..self.rng.random_range(1..4) {
            let col = self.pick(&shown);
            kinds.push(col.kind);
            exprs.push(col.name);
        }
        let partition = self.pick(&shown).name;
        for _ in 0..self.rng.random_range(1..3) {
            let mut over = match self.one_in(12) {
                true => String::new(),
                false => format!("PARTITION BY {partition} "),
            };
            if !over.is_empty() && self.one_in(4) {
                over = format!("{}, {} ", over.trim_end(), self.pick(&shown).name);
            }
            let order = self.pick(&shown).name;
            let direction = self.pick(&["", " DESC", " NULLS FIRST", " DESC NULLS LAST"]);
            let (call, kind) = self.window_call(&shown);
            let frame = match call.starts_with("sum") || call.starts_with("count") || call.starts_with("min") {
                true => self.pick(&[
                    "",
                    " ROWS BETWEEN 1 PRECEDING AND CURRENT ROW",
                    " ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW",
                    " ROWS BETWEEN UNBOUNDED PRECEDING AND UNBOUNDED FOLLOWING",
                ]),
                false => "",
            };
            exprs.push(format!("{call} OVER ({over}ORDER BY {order}{direction}{frame})"));
            kinds.push(kind);
        }
        let mut sql = format!("SELECT {} FROM {}{filter}", named(&exprs), from.sql);
        let numbered = exprs.iter().position(|expr| expr.starts_with("row_number"));
        if let Some(at) = numbered.filter(|_| self.one_in(2)) {
            let alias = self.alias();
            let outer = (0..exprs.len()).map(|at| format!("{alias}.c{at}")).collect::<Vec<_>>();
            sql = format!("SELECT {} FROM ({sql}) {alias} WHERE {alias}.c{at} <= 2", named(&outer));
        }
        Query { sql, kinds }
    }

    fn window_call(&mut self, cols: &[Col]) -> (String, Kind) {
        let col = self.pick(cols);
        match self.rng.random_range(0..8) {
            0 | 1 => ("row_number()".into(), Big),
            2 => (self.pick(&["rank()", "dense_rank()"]).into(), Big),
            3 => (format!("lag({})", col.name), col.kind),
            4 => (format!("lead({})", col.name), col.kind),
            5 if matches!(col.kind, Big | Int | Decimal | Double) => {
                (format!("sum({})", col.name), if col.kind == Int { Big } else { col.kind })
            }
            6 => (format!("first_value({})", col.name), col.kind),
            _ => ("count(*)".into(), Big),
        }
    }

    /// One to three relations, joined in any way.
    fn from(&mut self, depth: usize) -> From {
        let mut all = self.item(depth);
        let joins = self.pick(&[0, 0, 0, 1, 1, 1, 1, 2]);
        for _ in 0..joins {
            let next = self.item(depth.saturating_sub(1));
            let both: Vec<Col> = all.cols.iter().chain(&next.cols).cloned().collect();
            let Some(mut on) = self.equality(&all.cols, &next.cols) else { continue };
            if self.one_in(5)
                && let Some(more) = self.equality(&all.cols, &next.cols)
            {
                on += &format!(" AND {more}");
            }
            if self.one_in(3) {
                on += &format!(" AND ({})", self.predicate(&both, 1));
            }
            let kind = self.pick(&["JOIN", "JOIN", "JOIN", "LEFT JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"]);
            all = From { sql: format!("{} {kind} {} ON {on}", all.sql, next.sql), cols: both };
        }
        all
    }

    /// A relation, a model or a subquery, under an alias.
    fn item(&mut self, depth: usize) -> From {
        let alias = self.alias();
        if depth > 0 && self.one_in(4) {
            let query = self.query(depth - 1);
            return outputs(&format!("({}) {alias}", query.sql), &alias, &query.kinds);
        }
        if !self.models.is_empty() && self.one_in(2) {
            let at = self.rng.random_range(0..self.models.len());
            let kinds = self.models[at].kinds.clone();
            return outputs(&format!("m{} {alias}", at + 1), &alias, &kinds);
        }
        let (name, columns) = self.pick(&[("a", A), ("a", A), ("b", B), ("b", B), ("c", C)]);
        let cols = columns.iter().map(|(name, kind)| Col { name: format!("{alias}.{name}"), kind: *kind });
        From { sql: format!("{name} {alias}"), cols: cols.collect() }
    }

    /// An equality of two columns of the same kind, or of simple expressions over them.
    fn equality(&mut self, left: &[Col], right: &[Col]) -> Option<String> {
        let pairs: Vec<(Col, Col)> = left
            .iter()
            .flat_map(|one| right.iter().map(move |other| (one.clone(), other.clone())))
            .filter(|(one, other)| one.kind == other.kind && matches!(one.kind, Big | Int | Text | Time | Decimal))
            .collect();
        let (one, other) = pairs.choose(&mut self.rng)?.clone();
        Some(match self.rng.random_range(0..12) {
            0 if matches!(one.kind, Big | Int) => format!("{} + 1 = {}", one.name, other.name),
            1 => format!("({} IS NOT DISTINCT FROM {})", one.name, other.name),
            _ => format!("{} = {}", one.name, other.name),
        })
    }

    fn filter(&mut self, cols: &[Col], depth: usize) -> String {
        if self.one_in(2) {
            return String::new();
        }
        let mut filter = self.predicate(cols, 2);
        if depth > 0 && self.one_in(3) {
            let join = self.pick(&["AND", "AND", "AND", "OR"]);
            let asked = self.subquery(cols, depth);
            filter = if self.one_in(2) { asked } else { format!("{filter} {join} {asked}") };
        }
        format!(" WHERE {filter}")
    }

    /// A condition with a subquery: EXISTS, IN, or a comparison with one value.
    fn subquery(&mut self, cols: &[Col], depth: usize) -> String {
        let inner = self.item(depth - 1);
        let not = self.pick(&["", "NOT "]);
        match self.rng.random_range(0..6) {
            0..3 => {
                let Some(on) = self.equality(&inner.cols, cols) else { return "true".into() };
                let own = inner.cols.clone();
                let both: Vec<Col> = own.iter().chain(cols).cloned().collect();
                let more = match self.rng.random_range(0..4) {
                    0 => format!(" AND {}", self.predicate(&own, 1)),
                    1 if not.is_empty() => format!(" AND ({})", self.predicate(&both, 0)),
                    _ => String::new(),
                };
                format!("{not}EXISTS (SELECT 1 FROM {} WHERE {on}{more})", inner.sql)
            }
            3 | 4 => {
                let Some(wanted) = cols.iter().find(|col| inner.cols.iter().any(|own| own.kind == col.kind)) else {
                    return "true".into();
                };
                let own = inner.cols.iter().find(|own| own.kind == wanted.kind).expect("the kind is there");
                if wanted.kind == Opaque {
                    return "true".into();
                }
                let (wanted, own) = (wanted.name.clone(), own.name.clone());
                let not = if self.one_in(8) { "NOT " } else { "" };
                let filter = self.predicate(&inner.cols, 1);
                format!("{wanted} {not}IN (SELECT {own} FROM {} WHERE {filter})", inner.sql)
            }
            _ => {
                let numbers = |cols: &[Col]| cols.iter().filter(|col| matches!(col.kind, Big | Int)).cloned().collect();
                let (outer, own): (Vec<Col>, Vec<Col>) = (numbers(cols), numbers(&inner.cols));
                if outer.is_empty() || own.is_empty() {
                    return "true".into();
                }
                let (one, other) = (self.pick(&outer).name, self.pick(&own).name);
                let function = self.pick(&["min", "max", "count", "sum"]);
                let on = match self.equality(&inner.cols, cols) {
                    Some(on) if self.one_in(2) => format!(" WHERE {on}"),
                    _ => String::new(),
                };
                format!("{one} <= (SELECT {function}({other}) FROM {}{on})", inner.sql)
            }
        }
    }

    fn predicate(&mut self, cols: &[Col], depth: usize) -> String {
        if depth > 0 && self.one_in(3) {
            let (one, other) = (self.predicate(cols, depth - 1), self.predicate(cols, depth - 1));
            return match self.rng.random_range(0..5) {
                0 | 1 => format!("({one} AND {other})"),
                2 | 3 => format!("({one} OR {other})"),
                _ => format!("NOT ({one})"),
            };
        }
        let col = self.pick(cols);
        let name = &col.name;
        match (self.rng.random_range(0..7), col.kind) {
            (0, _) | (_, Opaque) => format!("{name} IS {}NULL", self.pick(&["", "NOT "])),
            (1, Big | Int) => format!("{name} IN (0, 1, 2)"),
            (2, Big | Int) => format!("{name} BETWEEN 0 AND 3"),
            (1, Text) => format!("{name} LIKE '%x%'"),
            (2, Text) => format!("{name} IN ('', 'x')"),
            (_, Bool) => name.clone(),
            (_, kind) => {
                let comparison = self.pick(&["=", "<>", "<", "<=", ">", ">="]);
                let other = if self.one_in(2) { self.literal(kind) } else { self.scalar(cols, kind, 0) };
                format!("{name} {comparison} {other}")
            }
        }
    }

    fn literal(&mut self, kind: Kind) -> String {
        let of: &[&str] = match kind {
            Big | Int => &["0", "1", "2", "5"],
            Text => &["'x'", "''", "'y'", "'É'"],
            Decimal => &["0.00", "1.50", "4.25", "1.0"],
            Double | Inexact => &["CAST(0.5 AS double)", "CAST(0 AS double)", "CAST(3 AS double)"],
            Time => &["TIMESTAMP '2018-03-02 15:00:00'", "TIMESTAMP '2018-03-02 16:30:00'"],
            Bool => &["true", "false"],
            Opaque => &["NULL"],
        };
        self.pick(of).to_owned()
    }

    /// An expression of this kind.
    fn scalar(&mut self, cols: &[Col], kind: Kind, depth: usize) -> String {
        let same: Vec<Col> = cols.iter().filter(|col| col.kind == kind).cloned().collect();
        let Some(col) = same.choose(&mut self.rng).cloned() else { return self.literal(kind) };
        if depth == 0 || kind == Opaque || !self.one_in(3) {
            return col.name;
        }
        let other = self.scalar(cols, kind, depth - 1);
        let name = col.name;
        match self.rng.random_range(0..5) {
            0 => format!("CASE WHEN {} THEN {name} ELSE {other} END", self.predicate(cols, 1)),
            1 => format!("CASE WHEN {} THEN {name} END", self.predicate(cols, 1)),
            2 => format!("coalesce({name}, {other})"),
            3 => format!("nullif({name}, {other})"),
            _ => match kind {
                Big | Int => format!("{name} + 1"),
                Text => format!("concat({name}, '!')"),
                Decimal => format!("{name} * 2"),
                Time => format!("date_trunc('hour', {name})"),
                Bool => format!("NOT {name}"),
                _ => name,
            },
        }
    }
}

/// The columns of a query under an alias.
fn outputs(sql: &str, alias: &str, kinds: &[Kind]) -> From {
    let cols = kinds.iter().enumerate().map(|(at, kind)| Col { name: format!("{alias}.c{at}"), kind: *kind });
    From { sql: sql.to_owned(), cols: cols.collect() }
}

fn named(exprs: &[String]) -> String {
    exprs.iter().enumerate().map(|(at, expr)| format!("{expr} AS c{at}")).collect::<Vec<_>>().join(", ")
}
