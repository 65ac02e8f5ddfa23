//! Flat columns that are filled value by value. Knows no text and no record.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BinaryViewBuilder, BooleanBuilder, PrimitiveBuilder, StringBuilder, StringViewBuilder,
};
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimestampMicrosecondType,
};

/// A value of a flat column; of which type is its column's matter.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Cell<'a> {
    Null,
    Boolean(bool),
    /// A whole number, or days or microseconds.
    Whole(i64),
    /// A decimal's digits.
    Decimal(i128),
    Float(f64),
    Text(Cow<'a, str>),
    Bytes(Vec<u8>),
}

impl Cell<'_> {
    pub(super) fn into_owned(self) -> Cell<'static> {
        match self {
            Self::Null => Cell::Null,
            Self::Boolean(value) => Cell::Boolean(value),
            Self::Whole(value) => Cell::Whole(value),
            Self::Decimal(value) => Cell::Decimal(value),
            Self::Float(value) => Cell::Float(value),
            Self::Text(text) => Cell::Text(Cow::Owned(text.into_owned())),
            Self::Bytes(bytes) => Cell::Bytes(bytes),
        }
    }
}

/// A column that grows.
pub(super) enum Column {
    Boolean(BooleanBuilder),
    Int16(PrimitiveBuilder<Int16Type>),
    Int32(PrimitiveBuilder<Int32Type>),
    Int64(PrimitiveBuilder<Int64Type>),
    Float32(PrimitiveBuilder<Float32Type>),
    Float64(PrimitiveBuilder<Float64Type>),
    Decimal(PrimitiveBuilder<Decimal128Type>),
    Date(PrimitiveBuilder<Date32Type>),
    Time(PrimitiveBuilder<Time64MicrosecondType>),
    Timestamp(PrimitiveBuilder<TimestampMicrosecondType>),
    Bytes(BinaryViewBuilder),
    Text(StringBuilder),
    View(StringViewBuilder),
}

impl Column {
    /// An empty column with room for `rows`.
    pub(super) fn new(data_type: &DataType, rows: usize) -> Self {
        match data_type {
            DataType::Boolean => Self::Boolean(BooleanBuilder::with_capacity(rows)),
            DataType::Int16 => Self::Int16(primitive(data_type, rows)),
            DataType::Int32 => Self::Int32(primitive(data_type, rows)),
            DataType::Int64 => Self::Int64(primitive(data_type, rows)),
            DataType::Float32 => Self::Float32(primitive(data_type, rows)),
            DataType::Float64 => Self::Float64(primitive(data_type, rows)),
            DataType::Decimal128(..) => Self::Decimal(primitive(data_type, rows)),
            DataType::Date32 => Self::Date(primitive(data_type, rows)),
            DataType::Time64(_) => Self::Time(primitive(data_type, rows)),
            DataType::Timestamp(..) => Self::Timestamp(primitive(data_type, rows)),
            DataType::BinaryView => Self::Bytes(BinaryViewBuilder::with_capacity(rows)),
            DataType::Utf8 => Self::Text(StringBuilder::with_capacity(rows, rows * 16)),
            _ => Self::View(StringViewBuilder::with_capacity(rows)),
        }
    }

    /// Adds a value; one that isn't of the column's type counts as null.
    pub(super) fn push(&mut self, cell: &Cell<'_>) {
        match (self, cell) {
            (Self::Int16(to), Cell::Whole(value)) => to.append_option(i16::try_from(*value).ok()),
            (Self::Int32(to), Cell::Whole(value)) => to.append_option(i32::try_from(*value).ok()),
            (Self::Int64(to), Cell::Whole(value)) => to.append_value(*value),
            (Self::Date(to), Cell::Whole(value)) => to.append_option(i32::try_from(*value).ok()),
            (Self::Time(to), Cell::Whole(value)) => to.append_value(*value),
            (Self::Timestamp(to), Cell::Whole(value)) => to.append_value(*value),
            (Self::Decimal(to), Cell::Decimal(value)) => to.append_value(*value),
            (Self::Float32(to), Cell::Float(value)) => to.append_value(*value as f32),
            (Self::Float64(to), Cell::Float(value)) => to.append_value(*value),
            (Self::Boolean(to), Cell::Boolean(value)) => to.append_value(*value),
            (Self::Bytes(to), Cell::Bytes(value)) => to.append_value(value),
            (Self::Text(to), Cell::Text(value)) => to.append_value(value),
            (Self::View(to), Cell::Text(value)) => to.append_value(value),
            (column, _) => column.push_null(),
        }
    }

    fn push_null(&mut self) {
        match self {
            Self::Boolean(to) => to.append_null(),
            Self::Int16(to) => to.append_null(),
            Self::Int32(to) => to.append_null(),
            Self::Int64(to) => to.append_null(),
            Self::Float32(to) => to.append_null(),
            Self::Float64(to) => to.append_null(),
            Self::Decimal(to) => to.append_null(),
            Self::Date(to) => to.append_null(),
            Self::Time(to) => to.append_null(),
            Self::Timestamp(to) => to.append_null(),
            Self::Bytes(to) => to.append_null(),
            Self::Text(to) => to.append_null(),
            Self::View(to) => to.append_null(),
        }
    }

    /// What was pushed.
    pub(super) fn finish(self) -> ArrayRef {
        match self {
            Self::Boolean(mut all) => Arc::new(all.finish()),
            Self::Int16(mut all) => Arc::new(all.finish()),
            Self::Int32(mut all) => Arc::new(all.finish()),
            Self::Int64(mut all) => Arc::new(all.finish()),
            Self::Float32(mut all) => Arc::new(all.finish()),
            Self::Float64(mut all) => Arc::new(all.finish()),
            Self::Decimal(mut all) => Arc::new(all.finish()),
            Self::Date(mut all) => Arc::new(all.finish()),
            Self::Time(mut all) => Arc::new(all.finish()),
            Self::Timestamp(mut all) => Arc::new(all.finish()),
            Self::Bytes(mut all) => Arc::new(all.finish()),
            Self::Text(mut all) => Arc::new(all.finish()),
            Self::View(mut all) => Arc::new(all.finish()),
        }
    }
}

fn primitive<T: ArrowPrimitiveType>(data_type: &DataType, rows: usize) -> PrimitiveBuilder<T> {
    PrimitiveBuilder::with_capacity(rows).with_data_type(data_type.clone())
}
