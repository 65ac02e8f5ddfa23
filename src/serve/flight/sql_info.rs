//! What this server is and can: answers to SqlInfo and XdbcTypeInfo. Facts only, no I/O.

use std::collections::HashMap;

use arrow_flight::sql::metadata::{
    SqlInfoData, SqlInfoDataBuilder, XdbcTypeInfo, XdbcTypeInfoData, XdbcTypeInfoDataBuilder,
};
use arrow_flight::sql::{
    Nullable, Searchable, SqlInfo, SqlNullOrdering, SqlOuterJoinsSupportLevel, SqlSupportedCaseSensitivity,
    SqlSupportedGroupBy, SqlSupportedResultSetConcurrency, SqlSupportedResultSetType, SqlSupportedSubqueries,
    SqlSupportedTransaction, SqlSupportedUnions, SqlSupportsConvert, SqlTransactionIsolationLevel, SupportedSqlGrammar,
    XdbcDataType, XdbcDatetimeSubcode,
};
use datafusion::prelude::SessionContext;
use datafusion::sql::sqlparser::keywords::ALL_KEYWORDS;

use super::catalog::internal;
use super::sqlstate::SqlResult;

/// An information that `arrow-flight` doesn't name and the JDBC driver asks for.
const STORED_FUNCTIONS_USING_CALL_SYNTAX: u32 = 576;

/// The answer to SqlInfo. Functions are those of `session`.
pub(super) fn sql_info(session: &SessionContext) -> SqlResult<SqlInfoData> {
    let mut info = SqlInfoDataBuilder::new();
    server(&mut info);
    language(&mut info, session);
    abilities(&mut info);
    bounds(&mut info);
    info.build().map_err(internal)
}

fn server(info: &mut SqlInfoDataBuilder) {
    info.append(SqlInfo::FlightSqlServerName, "Tidemill");
    info.append(SqlInfo::FlightSqlServerVersion, env!("CARGO_PKG_VERSION"));
    info.append(SqlInfo::FlightSqlServerArrowVersion, arrow::ARROW_VERSION);
    info.append(SqlInfo::FlightSqlServerReadOnly, true);
    info.append(SqlInfo::FlightSqlServerSql, true);
    info.append(SqlInfo::FlightSqlServerSubstrait, false);
    info.append(SqlInfo::FlightSqlServerTransaction, SqlSupportedTransaction::None as i32);
    info.append(SqlInfo::FlightSqlServerCancel, true);
    info.append(SqlInfo::FlightSqlServerBulkIngestion, false);
    info.append(SqlInfo::FlightSqlServerIngestTransactionsSupported, false);
    info.append(SqlInfo::FlightSqlServerStatementTimeout, 0i32);
    info.append(SqlInfo::FlightSqlServerTransactionTimeout, 0i32);
}

fn language(info: &mut SqlInfoDataBuilder, session: &SessionContext) {
    info.append(SqlInfo::SqlIdentifierCase, i64::from(SqlSupportedCaseSensitivity::SqlCaseSensitivityLowercase as i32));
    info.append(SqlInfo::SqlIdentifierQuoteChar, "\"");
    let exact = SqlSupportedCaseSensitivity::SqlCaseSensitivityCaseInsensitive as i32;
    info.append(SqlInfo::SqlQuotedIdentifierCase, i64::from(exact));
    info.append(SqlInfo::SqlNullOrdering, i64::from(SqlNullOrdering::SqlNullsSortedHigh as i32));
    let keywords: Vec<String> = ALL_KEYWORDS.iter().map(|word| (*word).to_owned()).collect();
    info.append(SqlInfo::SqlKeywords, keywords);
    for (name, words) in functions(session) {
        info.append(name, words);
    }
    info.append(SqlInfo::SqlSearchStringEscape, "\\");
    info.append(SqlInfo::SqlExtraNameCharacters, "");
    info.append(SqlInfo::SqlSchemaTerm, "schema");
    info.append(SqlInfo::SqlProcedureTerm, "procedure");
    info.append(SqlInfo::SqlCatalogTerm, "project");
    info.append(SqlInfo::SqlCatalogAtStart, true);
}

/// Function names by the kinds that JDBC asks for.
fn functions(session: &SessionContext) -> Vec<(SqlInfo, Vec<String>)> {
    const NUMERIC: &str = "abs acos acosh asin asinh atan atan2 atanh cbrt ceil cos cosh cot degrees exp factorial floor gcd \
        isnan iszero lcm ln log log10 log2 nanvl pi power radians random round signum sin sinh sqrt tan tanh trunc";
    const TIME: &str = "current_date current_time current_timestamp date_bin date_part date_trunc from_unixtime make_date \
        make_time now to_char to_date to_local_time to_time to_timestamp to_timestamp_micros to_timestamp_millis \
        to_timestamp_nanos to_timestamp_seconds to_unixtime today tumble hop session";
    const TEXT: &str = "ascii bit_length btrim char_length character_length chr concat concat_ws contains ends_with \
        find_in_set initcap instr left length levenshtein lower lpad ltrim octet_length overlay position regexp_count \
        regexp_instr regexp_like regexp_match regexp_replace repeat replace reverse right rpad rtrim split_part \
        starts_with strpos substr substr_index substring to_hex translate trim upper uuid";
    let state = session.state();
    let of = |names: &str| -> Vec<String> {
        names.split_whitespace().filter(|n| state.scalar_functions().contains_key(*n)).map(str::to_owned).collect()
    };
    vec![
        (SqlInfo::SqlNumericFunctions, of(NUMERIC)),
        (SqlInfo::SqlStringFunctions, of(TEXT)),
        (SqlInfo::SqlDatetimeFunctions, of(TIME)),
        (SqlInfo::SqlSystemFunctions, of("coalesce nullif nvl nvl2 greatest least version arrow_typeof arrow_cast")),
    ]
}

fn abilities(info: &mut SqlInfoDataBuilder) {
    for (name, is_supported) in [
        (SqlInfo::SqlAllTablesAreSelectable, true),
        (SqlInfo::SqlSupportsColumnAliasing, true),
        (SqlInfo::SqlNullPlusNullIsNull, true),
        (SqlInfo::SqlSupportsTableCorrelationNames, true),
        (SqlInfo::SqlSupportsDifferentTableCorrelationNames, false),
        (SqlInfo::SqlSupportsExpressionsInOrderBy, true),
        (SqlInfo::SqlSupportsOrderByUnrelated, true),
        (SqlInfo::SqlSupportsLikeEscapeClause, true),
        (SqlInfo::SqlSupportsNonNullableColumns, true),
        (SqlInfo::SqlSupportsIntegrityEnhancementFacility, false),
        (SqlInfo::SqlSelectForUpdateSupported, false),
        (SqlInfo::SqlStoredProceduresSupported, false),
        (SqlInfo::SqlCorrelatedSubqueriesSupported, true),
        (SqlInfo::SqlTransactionsSupported, false),
        (SqlInfo::SqlDataDefinitionCausesTransactionCommit, false),
        (SqlInfo::SqlDataDefinitionsInTransactionsIgnored, true),
        (SqlInfo::SqlBatchUpdatesSupported, false),
        (SqlInfo::SqlSavepointsSupported, false),
        (SqlInfo::SqlNamedParametersSupported, false),
        (SqlInfo::SqlLocatorsUpdateCopy, false),
        (SqlInfo::SqlMaxRowSizeIncludesBlobs, true),
    ] {
        info.append(name, is_supported);
    }
    let bits = |values: &[i32]| values.iter().fold(0i32, |mask, value| mask | 1 << value);
    for (name, mask) in [
        (SqlInfo::SqlDdlCatalog, 0),
        (SqlInfo::SqlDdlSchema, 0),
        (SqlInfo::SqlDdlTable, 0),
        (
            SqlInfo::SqlSupportedGroupBy,
            bits(&[
                SqlSupportedGroupBy::SqlGroupByUnrelated as i32,
                SqlSupportedGroupBy::SqlGroupByBeyondSelect as i32,
            ]),
        ),
        (SqlInfo::SqlSupportedGrammar, bits(&[SupportedSqlGrammar::SqlMinimumGrammar as i32])),
        // Entry level, the lowest bit.
        (SqlInfo::SqlAnsi92SupportedLevel, 1),
        (SqlInfo::SqlSchemasSupportedActions, 0),
        (SqlInfo::SqlCatalogsSupportedActions, 0),
        (SqlInfo::SqlSupportedPositionedCommands, 0),
        (
            SqlInfo::SqlSupportedSubqueries,
            bits(&[
                SqlSupportedSubqueries::SqlSubqueriesInComparisons as i32,
                SqlSupportedSubqueries::SqlSubqueriesInExists as i32,
                SqlSupportedSubqueries::SqlSubqueriesInIns as i32,
            ]),
        ),
        (
            SqlInfo::SqlSupportedUnions,
            bits(&[SqlSupportedUnions::SqlUnion as i32, SqlSupportedUnions::SqlUnionAll as i32]),
        ),
        (
            SqlInfo::SqlSupportedTransactionsIsolationLevels,
            bits(&[SqlTransactionIsolationLevel::SqlTransactionNone as i32]),
        ),
        (SqlInfo::SqlSupportedResultSetTypes, bits(&[SqlSupportedResultSetType::SqlResultSetTypeForwardOnly as i32])),
        (
            SqlInfo::SqlSupportedConcurrenciesForResultSetForwardOnly,
            bits(&[SqlSupportedResultSetConcurrency::SqlResultSetConcurrencyReadOnly as i32]),
        ),
        (SqlInfo::SqlSupportedConcurrenciesForResultSetUnspecified, 0),
        (SqlInfo::SqlSupportedConcurrenciesForResultSetScrollSensitive, 0),
        (SqlInfo::SqlSupportedConcurrenciesForResultSetScrollInsensitive, 0),
    ] {
        info.append(name, mask);
    }
    let joins =
        [SqlOuterJoinsSupportLevel::SqlLimitedOuterJoins as i32, SqlOuterJoinsSupportLevel::SqlFullOuterJoins as i32];
    info.append(SqlInfo::SqlOuterJoinsSupportLevel, bits(&joins));
    info.append(STORED_FUNCTIONS_USING_CALL_SYNTAX, false);
    let isolation = SqlTransactionIsolationLevel::SqlTransactionNone as i32;
    info.append(SqlInfo::SqlDefaultTransactionIsolation, i64::from(isolation));
    info.append(SqlInfo::SqlSupportsConvert, conversions());
}

/// What CAST converts: numbers among each other, text to and from all, times among each other.
fn conversions() -> HashMap<i32, Vec<i32>> {
    use SqlSupportsConvert as T;
    let numbers = [
        T::SqlConvertBigint,
        T::SqlConvertDecimal,
        T::SqlConvertFloat,
        T::SqlConvertInteger,
        T::SqlConvertNumeric,
        T::SqlConvertReal,
        T::SqlConvertSmallint,
        T::SqlConvertTinyint,
    ];
    let times = [T::SqlConvertDate, T::SqlConvertTimestamp];
    let text = T::SqlConvertVarchar;
    let codes = |types: &[T]| types.iter().map(|t| *t as i32).chain([text as i32]).collect::<Vec<_>>();
    let mut table = HashMap::new();
    for from in numbers {
        table.insert(from as i32, codes(&numbers));
    }
    for from in times {
        table.insert(from as i32, codes(&times));
    }
    let all: Vec<T> = numbers.into_iter().chain(times).collect();
    table.insert(text as i32, codes(&all));
    table
}

/// 0 is "no limit that is known".
fn bounds(info: &mut SqlInfoDataBuilder) {
    for name in [
        SqlInfo::SqlMaxBinaryLiteralLength,
        SqlInfo::SqlMaxCharLiteralLength,
        SqlInfo::SqlMaxColumnNameLength,
        SqlInfo::SqlMaxColumnsInGroupBy,
        SqlInfo::SqlMaxColumnsInIndex,
        SqlInfo::SqlMaxColumnsInOrderBy,
        SqlInfo::SqlMaxColumnsInSelect,
        SqlInfo::SqlMaxColumnsInTable,
        SqlInfo::SqlMaxConnections,
        SqlInfo::SqlMaxCursorNameLength,
        SqlInfo::SqlMaxIndexLength,
        SqlInfo::SqlDbSchemaNameLength,
        SqlInfo::SqlMaxProcedureNameLength,
        SqlInfo::SqlMaxCatalogNameLength,
        SqlInfo::SqlMaxRowSize,
        SqlInfo::SqlMaxStatementLength,
        SqlInfo::SqlMaxStatements,
        SqlInfo::SqlMaxTableNameLength,
        SqlInfo::SqlMaxTablesInSelect,
        SqlInfo::SqlMaxUsernameLength,
    ] {
        info.append(name, 0i64);
    }
}

/// The types that columns have.
pub(super) fn type_info() -> SqlResult<XdbcTypeInfoData> {
    use XdbcDataType as T;
    let mut types = XdbcTypeInfoDataBuilder::new();
    for (name, kind, digits) in [
        ("boolean", T::XdbcBit, 1),
        ("tinyint", T::XdbcTinyint, 3),
        ("smallint", T::XdbcSmallint, 5),
        ("integer", T::XdbcInteger, 10),
        ("bigint", T::XdbcBigint, 19),
        ("real", T::XdbcReal, 7),
        ("double", T::XdbcDouble, 15),
    ] {
        types.append(number(name, kind, digits));
    }
    types.append(XdbcTypeInfo {
        create_params: Some(vec!["precision".into(), "scale".into()]),
        minimum_scale: Some(0),
        maximum_scale: Some(38),
        ..number("decimal", T::XdbcDecimal, 38)
    });
    types.append(XdbcTypeInfo { case_sensitive: true, ..quoted("text", T::XdbcVarchar, None, "'") });
    types.append(quoted("bytea", T::XdbcVarbinary, None, "X'"));
    // 1 is both YEAR and DATE.
    for (name, kind, size, subcode) in [
        ("date", T::XdbcDate, 10, XdbcDatetimeSubcode::XdbcSubcodeYear),
        ("time", T::XdbcTime, 15, XdbcDatetimeSubcode::XdbcSubcodeTime),
        ("timestamp", T::XdbcTimestamp, 26, XdbcDatetimeSubcode::XdbcSubcodeTimestamp),
        ("timestamptz", T::XdbcTimestamp, 27, XdbcDatetimeSubcode::XdbcSubcodeTimestampWithTimezone),
    ] {
        let prefix = format!("{name} '");
        let base = quoted(name, kind, Some(size), &prefix);
        types.append(XdbcTypeInfo { datetime_subcode: Some(subcode), sql_data_type: T::XdbcDatetime, ..base });
    }
    types.build().map_err(internal)
}

fn number(name: &str, kind: XdbcDataType, digits: i32) -> XdbcTypeInfo {
    XdbcTypeInfo {
        type_name: name.into(),
        local_type_name: Some(name.into()),
        data_type: kind,
        sql_data_type: kind,
        column_size: Some(digits),
        nullable: Nullable::NullabilityNullable,
        searchable: Searchable::Full,
        unsigned_attribute: Some(false),
        auto_increment: Some(false),
        num_prec_radix: (kind != XdbcDataType::XdbcBit).then_some(10),
        ..XdbcTypeInfo::default()
    }
}

fn quoted(name: &str, kind: XdbcDataType, size: Option<i32>, prefix: &str) -> XdbcTypeInfo {
    XdbcTypeInfo {
        type_name: name.into(),
        local_type_name: Some(name.into()),
        data_type: kind,
        sql_data_type: kind,
        column_size: size,
        literal_prefix: Some(prefix.into()),
        literal_suffix: Some("'".into()),
        nullable: Nullable::NullabilityNullable,
        searchable: Searchable::Full,
        auto_increment: Some(false),
        ..XdbcTypeInfo::default()
    }
}
