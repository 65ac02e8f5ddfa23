//! The SQL types of a column contract and their Arrow types. Parses text; knows no DataFusion.

/// A column's SQL type.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum SqlType {
    /// `boolean`
    Boolean,
    /// `smallint`, 16 bits
    SmallInt,
    /// `integer`, 32 bits
    Integer,
    /// `bigint`, 64 bits
    BigInt,
    /// `real`, 32 bits
    Real,
    /// `double`, 64 bits
    Double,
    /// `decimal(precision, scale)`, up to 38 digits
    Decimal(u8, i8),
    /// `text`
    Text,
    /// `bytea`
    Bytea,
    /// `date`
    Date,
    /// `time`, microseconds of the day
    Time,
    /// `timestamp`: a wall-clock time in microseconds, never shifted
    Timestamp,
    /// `timestamptz`: an instant in microseconds
    TimestampTz,
}
