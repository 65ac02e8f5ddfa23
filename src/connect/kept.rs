//! Landed rows that can't be read again and stay under another contract: whether their columns are its columns. Reads nothing.

use arrow::datatypes::{Field, Schema};

use super::files::parquet_file::is_widening;
use crate::plan::types::sql_name;

/// Whether stored columns can be read as the wanted ones, each value being the same; why not.
pub(super) fn fits(stored: &Schema, wanted: &Schema) -> Result<(), String> {
    let mut new: Vec<&Field> = Vec::new();
    for field in wanted.fields() {
        let Ok(there) = stored.field_with_name(field.name()) else {
            new.push(field);
            continue;
        };
        if !is_widening(there.data_type(), field.data_type()) {
            let (before, now) = (sql_name(there.data_type()), sql_name(field.data_type()));
            return Err(format!("`{}` was {before} and is {now}, which may not hold each value", field.name()));
        }
    }
    if let Some(field) = new.iter().find(|field| !field.is_nullable()) {
        return Err(format!("they have no `{}`, which may not be null", field.name()));
    }
    let gone = stored.fields().iter().find(|field| wanted.field_with_name(field.name()).is_err());
    match (gone, new.first()) {
        (Some(gone), Some(new)) => Err(format!(
            "they have `{}` and no `{}`: whether that is the same column under another name can't be told; take the one \
             away and run, then add the other, which is null in them",
            gone.name(),
            new.name()
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::DataType;

    use super::*;

    /// A schema of `name type`, with `!` where nulls may not be.
    fn schema(columns: &[(&str, DataType)]) -> Schema {
        let field = |(name, data_type): &(&str, DataType)| match name.strip_suffix('!') {
            Some(name) => Field::new(name, data_type.clone(), false),
            None => Field::new(*name, data_type.clone(), true),
        };
        Schema::new(columns.iter().map(field).collect::<Vec<_>>())
    }

    #[test]
    fn columns_that_rows_can_be_read_under() {
        use DataType::{Decimal128, Int32, Int64, Utf8};
        let stored = schema(&[("id!", Int32), ("city", Utf8), ("price", Decimal128(8, 2))]);
        let told = |wanted: &[(&str, DataType)]| fits(&stored, &schema(wanted)).err().unwrap_or_default();
        let same = [("id!", Int32), ("city", Utf8), ("price", Decimal128(8, 2))];
        assert_eq!(told(&same), "");
        assert_eq!(told(&[("id!", Int64), ("city", Utf8), ("price", Decimal128(10, 2))]), "", "widened");
        assert_eq!(told(&[("x", Utf8), ("id", Int32), ("city", Utf8), ("price", Decimal128(8, 2))]), "", "added");
        assert_eq!(told(&same[..1]), "", "taken away");
        for (wanted, expected) in [
            (
                vec![("id!", Int32), ("city", Utf8), ("price", Decimal128(7, 2))],
                "`price` was decimal(8, 2) and is decimal(7, 2)",
            ),
            (vec![("id", Utf8), ("city", Utf8)], "`id` was integer and is text"),
            (vec![("id!", Int32), ("x!", Utf8)], "they have no `x`, which may not be null"),
            (vec![("id!", Int32), ("town", Utf8), ("price", Decimal128(8, 2))], "they have `city` and no `town`"),
        ] {
            assert!(told(&wanted).starts_with(expected), "{}", told(&wanted));
        }
    }
}
