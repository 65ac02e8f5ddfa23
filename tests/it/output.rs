//! Every output format over every type.

use std::fs::{self, File};
use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Float64Type, Int32Type, Int64Type, Schema, SchemaRef};
use arrow::ipc::reader::FileReader;
use futures::{StreamExt, stream};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tidemill::cli::output::{Format, Target, write};
use tidemill::error::{Error, ErrorKind, Result};

/// What `batches` look like in a file of that format.
fn written(batches: &[RecordBatch], format: Format) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("out");
    let rows = to_file(batches[0].schema(), batches.iter().cloned().map(Ok).collect(), format, &file).unwrap();
    assert_eq!(rows, batches.iter().map(|b| b.num_rows() as u64).sum::<u64>());
    fs::read(&file).unwrap()
}

fn to_file(
    schema: SchemaRef,
    batches: Vec<Result<RecordBatch>>,
    format: Format,
    file: &std::path::Path,
) -> Result<u64> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(write(schema, stream::iter(batches).boxed(), format, &Target::File(file.to_path_buf())))
}

fn text(batches: &[RecordBatch], format: Format) -> String {
    String::from_utf8(written(batches, format)).unwrap()
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap()
}

/// One column in each text format: table, CSV and JSON without headers and frames, a value each.
fn values(array: impl Array + 'static) -> (Vec<String>, Vec<String>, Vec<String>) {
    let batch = batch(vec![("v", Arc::new(array))]);
    let of = |text: String, skip: usize| text.lines().skip(skip).map(|l| l.trim().to_string()).collect::<Vec<_>>();
    let json = of(text(std::slice::from_ref(&batch), Format::Json), 0);
    let json = json.iter().map(|l| l.strip_prefix("{\"v\":").unwrap().strip_suffix('}').unwrap().to_string()).collect();
    (of(text(std::slice::from_ref(&batch), Format::Table), 2), of(text(&[batch], Format::Csv), 1), json)
}

/// Asserts the texts of a column of two values and a null.
fn assert_values(array: impl Array + 'static, text: [&str; 2], json: [&str; 2]) {
    let what = array.data_type().to_string();
    let (tables, csv, lines) = values(array);
    assert_eq!(tables, [text[0], text[1], "NULL"], "{what} as a table");
    let csv_text =
        |t: &str| if t.contains([',', '"']) { format!("\"{}\"", t.replace('"', "\"\"")) } else { t.to_string() };
    assert_eq!(csv, [csv_text(text[0]), csv_text(text[1]), String::new()], "{what} as CSV");
    assert_eq!(lines, [json[0], json[1], "null"], "{what} as JSON");
}

fn assert_same(array: impl Array + 'static, text: [&str; 2]) {
    assert_values(array, text, text);
}

fn assert_quoted(array: impl Array + 'static, text: [&str; 2]) {
    let json = text.map(|t| format!("\"{t}\""));
    assert_values(array, text, [&json[0], &json[1]]);
}

#[test]
fn numbers_are_exact_in_every_width() {
    assert_same(BooleanArray::from(vec![Some(true), Some(false), None]), ["true", "false"]);
    assert_same(Int8Array::from(vec![Some(i8::MIN), Some(7), None]), ["-128", "7"]);
    assert_same(Int16Array::from(vec![Some(i16::MIN), Some(7), None]), ["-32768", "7"]);
    assert_same(Int32Array::from(vec![Some(i32::MIN), Some(7), None]), ["-2147483648", "7"]);
    assert_same(
        Int64Array::from(vec![Some(i64::MIN), Some(i64::MAX), None]),
        ["-9223372036854775808", "9223372036854775807"],
    );
    assert_same(UInt8Array::from(vec![Some(0), Some(255), None]), ["0", "255"]);
    assert_same(UInt16Array::from(vec![Some(0), Some(u16::MAX), None]), ["0", "65535"]);
    assert_same(UInt32Array::from(vec![Some(0), Some(u32::MAX), None]), ["0", "4294967295"]);
    assert_same(UInt64Array::from(vec![Some(1), Some(u64::MAX), None]), ["1", "18446744073709551615"]);
}

#[test]
fn decimals_keep_their_full_scale() {
    let money = |values: Vec<Option<i128>>| Decimal128Array::from(values).with_precision_and_scale(38, 2).unwrap();
    assert_same(money(vec![Some(1000), Some(-5), None]), ["10.00", "-0.05"]);
    let longest = 99_999_999_999_999_999_999_999_999_999_999_999_999;
    assert_same(money(vec![Some(longest), Some(0), None]), ["999999999999999999999999999999999999.99", "0.00"]);
    let narrow = Decimal64Array::from(vec![Some(-123_456), Some(1), None]).with_precision_and_scale(12, 3).unwrap();
    assert_same(narrow, ["-123.456", "0.001"]);
    let whole = Decimal128Array::from(vec![Some(12), Some(-7), None]).with_precision_and_scale(9, 0).unwrap();
    assert_same(whole, ["12", "-7"]);
}

#[test]
fn floats_read_back_as_the_same_bits() {
    let read_back = [0.1 + 0.2, f64::MIN_POSITIVE, f64::MAX, -1.0 / 3.0, 1e21, 123_456_789.0];
    let (_, csv, json) = values(Float64Array::from(read_back.to_vec()));
    for (value, (csv, json)) in read_back.iter().zip(csv.iter().zip(&json)) {
        assert_eq!(csv.parse::<f64>().unwrap().to_bits(), value.to_bits());
        assert_eq!(serde_json::from_str::<f64>(json).unwrap(), *value);
    }
    assert_same(Float64Array::from(vec![Some(1.0), Some(-0.0), None]), ["1.0", "-0.0"]);
    assert_same(Float32Array::from(vec![Some(0.1), Some(1e10), None]), ["0.1", "10000000000.0"]);
    assert_values(
        Float64Array::from(vec![Some(f64::NAN), Some(f64::INFINITY), None]),
        ["NaN", "Infinity"],
        ["null", "null"],
    );
    assert_values(
        Float32Array::from(vec![Some(f32::NEG_INFINITY), Some(f32::NAN), None]),
        ["-Infinity", "NaN"],
        ["null", "null"],
    );
}

#[test]
fn times_are_iso_8601_with_a_fraction_only_where_there_is_one() {
    assert_quoted(Date32Array::from(vec![Some(17774), Some(-1), None]), ["2018-08-31", "1969-12-31"]);
    assert_quoted(Date64Array::from(vec![Some(17774 * 86_400_000), Some(-1), None]), ["2018-08-31", "1969-12-31"]);
    assert_quoted(Time32SecondArray::from(vec![Some(0), Some(86_399), None]), ["00:00:00", "23:59:59"]);
    assert_quoted(
        Time64MicrosecondArray::from(vec![Some(1), Some(3_600_500_000), None]),
        ["00:00:00.000001", "01:00:00.5"],
    );
    let at = 1_535_752_800_000_000; // 2018-08-31 22:00 UTC
    let wall = |values: Vec<Option<i64>>| TimestampMicrosecondArray::from(values);
    assert_quoted(wall(vec![Some(at), Some(at + 500_000), None]), ["2018-08-31T22:00:00", "2018-08-31T22:00:00.5"]);
    assert_quoted(
        wall(vec![Some(-1), Some(at + 120), None]),
        ["1969-12-31T23:59:59.999999", "2018-08-31T22:00:00.00012"],
    );
    let instant = wall(vec![Some(at), Some(at + 1), None]).with_timezone("America/Sao_Paulo");
    assert_quoted(instant, ["2018-08-31T22:00:00Z", "2018-08-31T22:00:00.000001Z"]);
    let seconds = TimestampSecondArray::from(vec![Some(0), Some(-86_400), None]).with_timezone("+05:30");
    assert_quoted(seconds, ["1970-01-01T00:00:00Z", "1969-12-31T00:00:00Z"]);
    let nanoseconds = TimestampNanosecondArray::from(vec![Some(1), Some(-1), None]);
    assert_quoted(nanoseconds, ["1970-01-01T00:00:00.000000001", "1969-12-31T23:59:59.999999999"]);
}

#[test]
fn a_time_outside_of_the_calendar_is_an_error_not_another_time() {
    let folder = tempfile::tempdir().unwrap();
    let far = batch(vec![("d", Arc::new(Date32Array::from(vec![i32::MAX])))]);
    let error = to_file(far.schema(), vec![Ok(far)], Format::Csv, &folder.path().join("out")).unwrap_err();
    assert!(error.to_string().contains("outside of the calendar: 2147483647"), "{error}");
}

#[test]
fn texts_and_bytes() {
    let awkward = vec![Some("a \"b\", c"), Some("é漢"), None];
    let json = ["\"a \\\"b\\\", c\"", "\"é漢\""];
    assert_values(StringArray::from(awkward.clone()), ["a \"b\", c", "é漢"], json);
    assert_values(LargeStringArray::from(awkward.clone()), ["a \"b\", c", "é漢"], json);
    assert_values(StringViewArray::from(awkward), ["a \"b\", c", "é漢"], json);
    let bytes: Vec<Option<&[u8]>> = vec![Some(&[0, 255, 16]), Some(&[]), None];
    assert_values(BinaryArray::from(bytes.clone()), ["\\x00ff10", "\\x"], ["\"AP8Q\"", "\"\""]);
    assert_values(BinaryViewArray::from(bytes), ["\\x00ff10", "\\x"], ["\"AP8Q\"", "\"\""]);
    let coded: DictionaryArray<Int32Type> = vec![Some("x"), Some("y"), None].into_iter().collect();
    assert_quoted(coded, ["x", "y"]);
}

#[test]
fn nested_values_are_json_in_every_text_format() {
    let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(vec![Some(vec![Some(1), None]), Some(vec![]), None]);
    assert_same(lists, ["[1,null]", "[]"]);
    let fixed = FixedSizeListArray::from_iter_primitive::<Float64Type, _, _>(
        vec![Some(vec![Some(0.5), Some(1.0)]), Some(vec![None, Some(f64::NAN)]), None],
        2,
    );
    assert_same(fixed, ["[0.5,1.0]", "[null,null]"]);

    let names: ArrayRef = Arc::new(StringArray::from(vec![Some("a,\"b"), None, None]));
    let days: ArrayRef = Arc::new(Date32Array::from(vec![Some(0), Some(1), None]));
    let prices: ArrayRef =
        Arc::new(Decimal128Array::from(vec![Some(100), None, None]).with_precision_and_scale(9, 2).unwrap());
    let fields = vec![
        Field::new("na\"me", DataType::Utf8, true),
        Field::new("day", DataType::Date32, true),
        Field::new("price", DataType::Decimal128(9, 2), true),
    ];
    let nulls = vec![true, true, false].into();
    let structs = StructArray::new(fields.into(), vec![names, days, prices], Some(nulls));
    let members =
        [r#"{"na\"me":"a,\"b","day":"1970-01-01","price":1.00}"#, r#"{"na\"me":null,"day":"1970-01-02","price":null}"#];
    assert_same(structs.clone(), members);

    // Lists of structs, and a map, whose keys are texts in JSON.
    let item = Arc::new(Field::new("item", structs.data_type().clone(), true));
    let offsets = OffsetBuffer::new(vec![0, 2, 2, 3].into());
    let nested = ListArray::new(item, offsets, Arc::new(structs), Some(vec![true, true, false].into()));
    assert_same(nested, [&format!("[{},{}]", members[0], members[1]), "[]"]);
    let mut map = MapBuilder::new(None, Int64Builder::new(), StringBuilder::new());
    map.keys().append_value(1);
    map.values().append_value("x");
    map.keys().append_value(2);
    map.values().append_null();
    map.append(true).unwrap();
    map.append(true).unwrap();
    map.append(false).unwrap();
    assert_same(map.finish(), [r#"{"1":"x","2":null}"#, "{}"]);
}

fn small() -> RecordBatch {
    let days: ArrayRef = Arc::new(Date32Array::from(vec![Some(17774), None]));
    let orders: ArrayRef = Arc::new(Int64Array::from(vec![3, 12_000]));
    let city: ArrayRef = Arc::new(StringArray::from(vec![Some("São Paulo"), Some("")]));
    let revenue: ArrayRef =
        Arc::new(Decimal128Array::from(vec![Some(1000), None]).with_precision_and_scale(12, 2).unwrap());
    batch(vec![("day", days), ("orders", orders), ("city", city), ("revenue", revenue)])
}

#[test]
fn a_table_aligns_numbers_right_and_tells_null_from_empty() {
    let expected = concat!(
        " day        | orders | city      | revenue\n",
        "------------+--------+-----------+---------\n",
        " 2018-08-31 |      3 | São Paulo |   10.00\n",
        " NULL       |  12000 |           |    NULL\n",
    );
    assert_eq!(text(&[small()], Format::Table), expected);
    // Also in several batches, and with what would break lines or steer a terminal.
    assert_eq!(text(&[small().slice(0, 1), small().slice(1, 1)], Format::Table), expected);
    let wide = batch(vec![
        ("t", Arc::new(StringArray::from(vec!["漢字", "a\nb\u{1b}[31m"]))),
        ("n", Arc::new(Int64Array::from(vec![1, 2]))),
    ]);
    let expected =
        concat!(" t              | n\n", "----------------+---\n", " 漢字           | 1\n", " a\\nb\\u{1b}[31m | 2\n",);
    assert_eq!(text(&[wide], Format::Table), expected);
}

#[test]
fn a_table_of_more_rows_than_are_measured_streams_on() {
    let long: ArrayRef = Arc::new(Int64Array::from_iter_values(0..8_000));
    let part = batch(vec![("n", long)]);
    let printed = text(&[part.clone(), part.clone(), part], Format::Table);
    assert_eq!(printed.lines().count(), 24_002);
    assert_eq!(printed.lines().last(), Some(" 7999"));
}

#[test]
fn csv_tells_null_from_an_empty_text_and_quotes_what_needs_it() {
    assert_eq!(text(&[small()], Format::Csv), "day,orders,city,revenue\n2018-08-31,3,São Paulo,10.00\n,12000,\"\",\n");
    let awkward = batch(vec![
        ("a,b", Arc::new(StringArray::from(vec!["x\ny", " z ", "q\"q", "r\r"]))),
        ("", Arc::new(StringArray::from(vec![None::<&str>, None, None, None]))),
    ]);
    assert_eq!(text(&[awkward], Format::Csv), "\"a,b\",\"\"\n\"x\ny\",\n z ,\n\"q\"\"q\",\n\"r\r\",\n");
}

#[test]
fn json_has_one_object_a_line_with_every_column() {
    let expected = "{\"day\":\"2018-08-31\",\"orders\":3,\"city\":\"São Paulo\",\"revenue\":10.00}\n\
                    {\"day\":null,\"orders\":12000,\"city\":\"\",\"revenue\":null}\n";
    assert_eq!(text(&[small()], Format::Json), expected);
}

#[test]
fn no_rows_still_have_columns() {
    let none = small().slice(0, 0);
    assert_eq!(text(std::slice::from_ref(&none), Format::Csv), "day,orders,city,revenue\n");
    assert_eq!(text(std::slice::from_ref(&none), Format::Json), "");
    assert_eq!(
        text(std::slice::from_ref(&none), Format::Table),
        " day | orders | city | revenue\n-----+--------+------+---------\n"
    );
    assert_eq!(parquet_rows(written(std::slice::from_ref(&none), Format::Parquet)), (none.schema(), vec![]));
}

fn parquet_rows(bytes: Vec<u8>) -> (SchemaRef, Vec<RecordBatch>) {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes::Bytes::from(bytes)).unwrap();
    (Arc::clone(reader.schema()), reader.build().unwrap().map(|b| b.unwrap()).collect())
}

#[test]
fn parquet_and_arrow_hold_the_same_rows() {
    let nested = ListArray::from_iter_primitive::<Int64Type, _, _>(vec![Some(vec![Some(1), None]), None]);
    let instants = TimestampMicrosecondArray::from(vec![Some(1), None]).with_timezone("UTC");
    let mut columns: Vec<(String, ArrayRef)> = vec![("l".into(), Arc::new(nested)), ("t".into(), Arc::new(instants))];
    let plain = small();
    columns.extend(plain.schema().fields().iter().map(|f| f.name().clone()).zip(plain.columns().iter().cloned()));
    let rows = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true))).unwrap();

    let (schema, read) = parquet_rows(written(&[rows.clone(), rows.clone()], Format::Parquet));
    assert_eq!(schema, rows.schema());
    assert_eq!(
        arrow::compute::concat_batches(&schema, &read).unwrap(),
        arrow::compute::concat_batches(&schema, [&rows, &rows]).unwrap()
    );

    let file = written(std::slice::from_ref(&rows), Format::Arrow);
    let read: Vec<_> = FileReader::try_new(std::io::Cursor::new(file), None).unwrap().map(|b| b.unwrap()).collect();
    assert_eq!(read, [rows]);
}

#[test]
fn a_failed_result_leaves_the_file_as_it_was_and_nothing_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("out.csv");
    fs::write(&file, "before").unwrap();
    let broken = vec![Ok(small()), Err(Error::external("the disk is gone"))];
    let error = to_file(small().schema(), broken, Format::Csv, &file).unwrap_err();
    assert_eq!((error.kind(), error.to_string()), (ErrorKind::External, "the disk is gone".to_string()));
    assert_eq!(fs::read_to_string(&file).unwrap(), "before");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

    to_file(small().schema(), vec![Ok(small())], Format::Csv, &file).unwrap();
    assert!(fs::read_to_string(&file).unwrap().starts_with("day,"));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

    let nowhere = folder.path().join("no").join("such").join("folder.csv");
    let error = to_file(small().schema(), vec![], Format::Csv, &nowhere).unwrap_err();
    assert!(error.to_string().contains("folder.csv"), "{error}");
}

#[test]
fn two_columns_of_one_name_are_refused_where_a_name_must_be_unique() {
    let schema =
        Arc::new(Schema::new(vec![Field::new("id", DataType::Int32, true), Field::new("id", DataType::Int32, true)]));
    let folder = tempfile::tempdir().unwrap();
    for format in [Format::Json, Format::Parquet] {
        let error = to_file(Arc::clone(&schema), vec![], format, &folder.path().join("out")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains("two columns are named id"), "{error}");
    }
    for format in [Format::Csv, Format::Table, Format::Arrow] {
        to_file(Arc::clone(&schema), vec![], format, &folder.path().join("out")).unwrap();
    }
    assert!(File::open(folder.path().join("out")).is_ok());
}
