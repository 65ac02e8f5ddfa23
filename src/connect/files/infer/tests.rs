//! How columns, formats and types are guessed from files.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray, UInt64Array};
use proptest::prelude::*;

use super::super::FilesSource;
use super::*;
use crate::connect::Source as _;
use crate::connect::decode::{Contract, TextReader, open_text};
use crate::error::ErrorKind;
use crate::spec::types::{ConnectorSpec, FileFormat, FilesSpec, SourceSpec};
use crate::spec::{LoadOptions, load_with};

/// A project folder with files in it.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// What is proposed for one file, and how its columns stand in YAML.
    fn columns(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let (yaml, refused) = self.propose(name, bytes);
        assert_eq!(refused, 0, "rows refused under\n{yaml}");
        yaml.split_once("    columns:\n").unwrap().1.lines().map(|line| format!("{}\n", line.trim())).collect()
    }

    /// The YAML, and how many rows a run would refuse under it.
    fn propose(&self, name: &str, bytes: impl AsRef<[u8]>) -> (String, usize) {
        let path = self.file(name, bytes);
        let sources = infer(std::slice::from_ref(&path)).unwrap();
        let yaml = sources[0].to_yaml(self.0.path());
        let source = self.load(&yaml).remove(0);
        (yaml, self.refused(&source, &path))
    }

    /// Sources of a project with these entries; any fault fails.
    fn load(&self, entries: &str) -> Vec<SourceSpec> {
        self.file("tidemill.yaml", "version: 1\nname: shop\ntimezone: America/Sao_Paulo\n");
        self.file("pipelines/shop.yaml", format!("pipeline: shop\nsources:\n{entries}"));
        let (project, faults) =
            load_with(&LoadOptions { root: self.0.path().to_path_buf(), ..LoadOptions::default() }, &|_| None);
        assert!(faults.is_empty(), "{}\n{entries}", crate::spec::render::text(&faults, false));
        project.unwrap().pipelines.remove(0).sources
    }

    fn refused(&self, source: &SourceSpec, path: &Path) -> usize {
        let zone = "America/Sao_Paulo";
        let opened = FilesSource::open(self.0.path(), zone, source, files_of(source)).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let found = runtime.block_on(opened.store.list()).unwrap();
        assert_eq!(found.len(), 1, "the path finds its file and no other");
        let schema =
            runtime.block_on(opened.schema()).unwrap_or_else(|f| panic!("{}", crate::spec::render::text(&f, false)));
        let spec = files_of(source);
        let options = match &spec.format {
            FileFormat::Csv(csv) => &csv.text,
            FileFormat::Json(json) => json,
            FileFormat::Parquet => return 0,
        };
        let contract = Contract::new(schema, &source.columns, options, zone).unwrap();
        let encoding = options.encoding.as_ref().map(|e| e.value.as_str());
        let bytes = fs::File::open(path).unwrap();
        let input = open_text(&path.to_string_lossy(), encoding, bytes).unwrap();
        let mut reader = TextReader::new(&spec.format, input, &contract).unwrap();
        let mut refused = 0;
        while let Some(decoded) = reader.next_batch().unwrap() {
            refused += decoded.misfits.len();
        }
        refused
    }

    fn error(&self, name: &str, bytes: impl AsRef<[u8]>) -> Error {
        infer(&[self.file(name, bytes)]).unwrap_err()
    }
}

#[test]
fn a_spreadsheet_of_orders() {
    let csv = "order_id,status,bought at,price,units,zip,delivered,seen\n\
               a1,delivered,10/2/2017 10:56,58.9,1,01151,2017-10-10,2019-10-01 00:00:00 UTC\n\
               a2,shipped,7/24/2018 20:41,13.29,2,9790,,2019-10-01 00:00:01 UTC\n";
    let (yaml, refused) = Folder::new().propose("data/Orders 2017.csv", csv);
    assert_eq!(refused, 0);
    insta::assert_snapshot!(yaml, @r#"
      orders_2017:
        connector: files
        path: "data/Orders 2017.csv"
        format: csv
        columns:
          order_id: { type: text, nullable: false }
          status: text
          "bought at": { type: timestamp, timestamp_format: "%m/%d/%Y %H:%M" }
          price: decimal(12, 2)
          units: bigint
          zip: text  # leading zeros, as in 01151
          delivered: date
          seen: timestamptz
    "#);
}

#[test]
fn a_file_from_a_german_office() {
    let text = "Rechnung;Betrag;Kunde;Datum\n1;1234,5;Müller;3.10.2017\n2;0,75;Groß;24.12.2018\n";
    let bytes = encoding_rs::WINDOWS_1252.encode(text).0.into_owned();
    let (yaml, refused) = Folder::new().propose("rechnungen.csv", bytes);
    assert_eq!(refused, 0);
    insta::assert_snapshot!(yaml, @r#"
      rechnungen:
        connector: files
        path: rechnungen.csv
        format: csv
        delimiter: ";"
        decimal_separator: ","
        encoding: windows-1252
        timestamp_format: "%d.%m.%Y"
        columns:
          Rechnung: bigint
          Betrag: decimal(12, 2)
          Kunde: text
          Datum: date
    "#);
}

#[test]
fn numbers_are_never_rounded() {
    let columns = |cells: &str| Folder::new().columns("n.csv", format!("n,t\n{cells}"));
    for (cells, expected) in [
        ("1,a\n-9223372036854775808,b\n", "n: bigint\n"),
        ("9223372036854775808,a\n", "n: decimal(22, 0)\n"),
        ("1.5,a\n2,b\n", "n: decimal(12, 2)\n"),
        ("1.2345,a\n-12.3,b\n", "n: decimal(12, 6)\n"),
        ("1.234,a\n2.345,b\n", "n: decimal(12, 3)\n"),
        ("12345678901234.5,a\n", "n: decimal(19, 2)\n"),
        ("1e-05,a\n2.5,b\n", "n: double\n"),
        ("12E5,a\n34E6,b\n", "n: text\n"),
        ("+5511,a\n", "n: text\n"),
        ("0.5,a\n0,b\n", "n: decimal(12, 2)\n"),
        ("007,a\n8,b\n", "n: text  # leading zeros, as in 007\n"),
        ("1.00000000000000000000000000000000000001,a\n", "n: text  # more than 38 digits\n"),
        ("\"1,234\",a\n\"5,678\",b\n", "n: text  # commas may stand before decimals or between thousands\n"),
        ("\"\",a\n5,b\n", "n: text\n"),
        (",a\n,b\n", "n: text  # no value in the sample\n"),
        ("true,a\nFalse,b\n", "n: boolean\n"),
        (
            "1,a\n1,b\n2,c\n3,d\n4,e\n5,f\n6,g\n7,h\n8,i\nN/A,j\n",
            "n: text  # 1 of 10 sampled values aren't numbers, such as N/A; if it means null, name it in `null_values`\n",
        ),
    ] {
        assert_eq!(columns(cells), format!("{expected}t: text\n"), "{cells}");
    }
}

#[test]
fn a_comma_before_decimals_must_be_clear_for_the_whole_file() {
    let folder = Folder::new();
    let (yaml, refused) = folder.propose("a.csv", "a;b\n1,5;1.234\n2,25;5.678\n");
    assert!(
        yaml.contains("decimal_separator: \",\"\n")
            && yaml.contains("a: decimal(12, 2)\n")
            && yaml.contains("b: text\n"),
        "{yaml}"
    );
    assert_eq!(refused, 0);
    let (yaml, _) = folder.propose("b.csv", "a;b\n1,5;1.2\n2,25;5.6\n");
    assert!(
        !yaml.contains("decimal_separator") && yaml.contains("a: text  # commas") && yaml.contains("b: decimal"),
        "{yaml}"
    );
}

#[test]
fn only_values_tell_whether_the_month_comes_first() {
    let folder = Folder::new();
    let unclear = "id,at\n1,1/2/2018 9:05\n2,3/4/2018 10:00\n";
    assert_eq!(
        folder.columns("a.csv", unclear),
        "id: { type: bigint, nullable: false }\n\
         at: text  # no value tells whether month or day comes first: %m/%d/%Y %H:%M or %d/%m/%Y %H:%M\n"
    );
    assert_eq!(
        folder.columns("b.csv", format!("{unclear}3,31/1/2018 0:00\n")),
        "id: { type: bigint, nullable: false }\nat: timestamp\n"
    );
    let (yaml, _) = folder.propose("c.csv", "at,until\n1/2/2018,1/31/2018\n3/4/2018,2/1/2018\n");
    assert!(yaml.contains("    timestamp_format: \"%m/%d/%Y\"\n"), "{yaml}");
    assert!(yaml.contains("      at: date  # month first, as in until\n      until: date\n"), "{yaml}");
    let (yaml, _) = folder.propose("d.csv", "at,from,until\n1/2/2018,31/1/2018,1/31/2018\n");
    assert!(yaml.contains("      at: text  # no value tells"), "{yaml}");
}

#[test]
fn times_as_people_and_programs_write_them() {
    let folder = Folder::new();
    for (values, expected) in [
        (&["2018-01-31", "2018-02-01"][..], "date"),
        (&["2018-01-31T22:00", "2018-02-01 00:00:01.5", "2018-02-01"], "timestamp"),
        (&["2018-01-31T22:00Z", "2018-02-01 00:00:01+03:00"], "timestamptz"),
        (
            &["2018-01-31 22:00:00 UTC", "2018-01-31 22:00:00"],
            "timestamptz  # 1 of 2 sampled values have no zone: they are read in the project's, or `timestamp_zone`",
        ),
        (&["31/12/2018 10:56:01 PM", "1/12/2018 1:06:00 AM"], "timestamp"),
        (&["12/31/18", "1/2/19"], "date"),
        (&["31-Dec-2018", "1-Jan-2019"], "date"),
        (&["December 31, 2018", "May 1, 2019"], "date"),
        (&["5 May 2018", "6 May 2019"], "date"),
        (&["31/12/2018 10:56:01", "31/12/2018 10:56:01.25"], "timestamp"),
        (&["31/12/2018 10:56:01 +0300", "30/12/2018 10:56:01 -0200"], "timestamptz"),
        (&["2018/1/31 9:00", "2018/12/1 10:00"], "timestamp"),
        (&["1.2.17", "3.4.18"], "text"),
        (&["10-20-30", "11-21-31"], "text"),
        (&["10:30", "25:00"], "text"),
        (
            &["2018-01-31T22:00:00.1234567", "2018-01-31"],
            "text  # not a time: 2018-01-31T22:00:00.1234567 has more than 6 digits of a second",
        ),
        (&["2018-01-31", "soon"], "text  # not a time: soon isn't a time in ISO 8601"),
        (&["12/31/2018", "unknown"], "text  # not a time: unknown isn't a date as `%m/%d/%Y`"),
    ] {
        let rows: String = values.iter().map(|value| format!("x\t{value}\n")).collect();
        assert_eq!(
            folder.columns("t.tsv", format!("a\tat\n{rows}")),
            format!("a: text\nat: {expected}\n"),
            "{values:?}"
        );
    }
}

#[test]
fn delimiters_escapes_and_headers_are_found() {
    let folder = Folder::new();
    let (yaml, refused) = folder.propose("pipes.txt", "1|a,b|2018-01-01\n2|c|2018-01-02\n");
    assert!(
        yaml.contains("    # the first row looks like data") && yaml.contains("delimiter: \"|\"\n    header: false\n"),
        "{yaml}"
    );
    assert!(yaml.contains("      column_1: bigint\n      column_2: text\n      column_3: date\n"), "{yaml}");
    assert_eq!(refused, 0);
    let (yaml, refused) = folder.propose("escaped.csv", "a,b\n\"5\\\" disk, old\",1\n\"3\\\" disk\",2\n");
    assert!(yaml.contains("    escape: \"\\\\\"\n") && yaml.contains("b: bigint"), "{yaml}");
    assert_eq!(refused, 0);
    assert!(
        !folder.propose("names.csv", "german,english\nbeleza_saude,health_beauty\nauto,auto\n").0.contains("header")
    );
    assert!(folder.propose("hashes.csv", "06b8999e2fba,franca\n18955e83d337,campinas\n").0.contains("header: false"));
    assert_eq!(folder.columns("one.csv", "comment\n\"well, yes\"\nno\n"), "comment: text\n");
    assert_eq!(
        folder.columns("header.csv", "id,name\n"),
        "id: text  # no value in the sample\nname: text  # no value in the sample\n"
    );
}

#[test]
fn rows_of_another_shape_are_told_and_left_to_quarantine() {
    let (yaml, refused) = Folder::new().propose("torn.csv", "a,b\r\n1,2\r\n3,4\r\n5");
    assert_eq!(refused, 1);
    assert!(
        yaml.contains("    # 1 of 3 sampled rows would be refused; the first is row 3: the line has 1 fields"),
        "{yaml}"
    );
    assert!(yaml.contains("a: bigint\n      b: bigint\n"), "{yaml}");
}

#[test]
fn json_scalars_have_their_json_types() {
    let lines = r#"{"user_id": 7, "price": 1.50, "ratio": 1E5, "at": "2019-10-01 00:00:00 UTC", "code": "007", "ok": true, "tags": ["a"], "x": 1, "n": null}
{"user_id": 8, "price": 2, "ratio": 0.5, "at": null, "code": "8", "ok": null, "tags": [], "x": "1", "late": 3}
"#;
    assert_eq!(
        Folder::new().columns("events.ndjson", lines),
        "user_id: { type: bigint, nullable: false }\n\
         price: decimal(12, 2)\n\
         ratio: double\n\
         at: timestamptz\n\
         code: text\n\
         ok: boolean\n\
         tags: text[]\n\
         x: text  # values of more than one JSON type\n\
         n: text  # no value in the sample\n\
         late: bigint\n"
    );
}

#[test]
fn objects_and_lists_have_types_where_they_are_of_one_shape() {
    let lines = r#"{"id": 1, "items": [{"sku": "a", "price": 1.50, "at": "2019-10-01T00:00:00Z", "none": null}, null], "by": {"x": {"y": [1]}, "a, b": "c"}, "mix": [1, "a"], "either": {"a": 1}, "none": [], "line_id": [1]}
{"id": 2, "items": [], "by": {"x": null}, "mix": [[2]], "either": [1], "none": [], "line_id": [2, 3]}
"#;
    let folder = Folder::new();
    assert_eq!(
        folder.columns("events.ndjson", lines),
        "id: { type: bigint, nullable: false }\n\
         items: struct<sku text, price decimal(12, 2), at timestamptz, none json>[]\n\
         by: \"struct<x struct<y bigint[]>, \\\"a, b\\\" text>\"\n\
         mix: json[]\n\
         either: json  # of no one shape: `->>` reaches into it\n\
         none: json  # of no one shape: `->>` reaches into it\n\
         line_id: { type: \"bigint[]\", nullable: false }\n"
    );
    assert_eq!(folder.propose("again.ndjson", lines).1, 0);
}

#[test]
fn compressed_and_encoded_files_are_opened() {
    let folder = Folder::new();
    let text = "id,name\n1,Ünal\n2,x\n";
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(text.as_bytes()).unwrap();
    let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let columns = "id: { type: bigint, nullable: false }\nname: text\n";
    assert_eq!(folder.columns("a.csv.gz", gzip.finish().unwrap()), columns);
    assert_eq!(folder.columns("a.CSV.zst", zstd::encode_all(text.as_bytes(), 1).unwrap()), columns);
    assert_eq!(folder.columns("bom.csv", format!("\u{feff}{text}")), columns);
    assert_eq!(folder.columns("bom16.csv", [&[0xff, 0xfe], utf16.as_slice()].concat()), columns);
    let (yaml, refused) = folder.propose("bare16.csv", &utf16);
    assert!(yaml.contains("    encoding: utf-16le\n") && yaml.ends_with("name: text\n"), "{yaml}");
    assert_eq!(refused, 0);
    // One broken row in UTF-8 doesn't make the file another encoding.
    let broken = [text.repeat(3).as_bytes(), b"3,\xff\n"].concat();
    assert!(!folder.propose("broken.csv", broken).0.contains("encoding"));
}

#[test]
fn names_that_no_contract_can_have_are_left_out() {
    let header = "id,id,,_offset,<<,null,a: b #c,\"say \"\"so\"\"\",price $,ключ,\"two\nlines\"";
    let csv = format!("{header}\n{}\n", ["x"; 11].join(","));
    let (yaml, refused) = Folder::new().propose("odd.csv", csv);
    assert_eq!(refused, 0);
    insta::assert_snapshot!(yaml, @r##"
      odd:
        # left out: more than one column is named id
        # left out: column 3 has no name
        # left out: Tidemill adds a column _offset by itself
        # left out: YAML can't have a column named <<
        connector: files
        path: odd.csv
        format: csv
        columns:
          "null": text
          "a: b #c": text
          "say \"so\"": text
          "price $": text
          ключ: text
          "two\u000alines": text
    "##);
}

#[test]
fn only_identifiers_without_nulls_are_required() {
    let csv = "id,user_id,parentId,paid,ok_id\n1,7,,5,true\n2,8,9,6,false\n";
    assert_eq!(
        Folder::new().columns("a.csv", csv),
        "id: { type: bigint, nullable: false }\nuser_id: { type: bigint, nullable: false }\nparentId: bigint\npaid: bigint\nok_id: boolean\n"
    );
}

#[test]
fn source_names_are_unique_identifiers() {
    let folder = Folder::new();
    let files = [
        "Orders.csv",
        "x/orders.csv",
        "orders_2.csv",
        "2019-Oct.csv",
        "order.csv",
        "größe.csv",
        "orders_quarantine.csv",
        "---.csv",
    ];
    let paths: Vec<PathBuf> = files.iter().map(|name| folder.file(name, "a,b\nx,1\n")).collect();
    let sources = infer(&[paths.as_slice(), &paths[..1]].concat()).unwrap();
    let names: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
    assert_eq!(
        names,
        ["orders", "orders_3", "orders_2", "file_2019_oct", "file_order", "gr_e", "orders_quarantine_2", "file"]
    );
    let yaml: String = sources.iter().map(|source| source.to_yaml(folder.0.path())).collect();
    assert_eq!(folder.load(&yaml).len(), names.len());
}

#[test]
fn paths_are_relative_below_the_project_only() {
    let folder = Folder::new();
    let path = folder.file("in/$cost {1}.csv", "a,b\nx,1\n");
    let source = &infer(&[folder.0.path().join("in/../in/$cost {1}.csv")]).unwrap()[0];
    assert!(
        source.to_yaml(folder.0.path()).contains("path: \"in/$$cost [{]1[}].csv\"\n"),
        "{}",
        source.to_yaml(folder.0.path())
    );
    let elsewhere = source.to_yaml(&folder.0.path().join("in/project"));
    assert!(elsewhere.contains("/in/$$cost [{]1[}].csv\"\n") && elsewhere.contains("path: \"/"), "{elsewhere}");
    assert!(path.is_file());
}

#[test]
fn parquet_goes_by_its_schema() {
    let folder = Folder::new();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("order_id", Arc::new(Int64Array::from(vec![1, 2]))),
        ("user_id", Arc::new(Int64Array::from(vec![Some(1), None]))),
        ("total", Arc::new(UInt64Array::from(vec![1, u64::MAX]))),
        ("at", Arc::new(TimestampNanosecondArray::from(vec![1, 2]).with_timezone("UTC"))),
        ("name", Arc::new(StringArray::from(vec!["a", "b"]))),
        (
            "list",
            Arc::new(arrow::array::ListArray::new_null(
                Arc::new(arrow::datatypes::Field::new("item", arrow::datatypes::DataType::Int64, true)),
                2,
            )),
        ),
    ];
    let batch =
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap();
    let mut bytes = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut bytes, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let (yaml, _) = folder.propose("orders.parquet", &bytes);
    insta::assert_snapshot!(yaml, @r#"
      orders:
        connector: files
        path: orders.parquet
        format: parquet
        columns:
          order_id: { type: bigint, nullable: false }
          user_id: bigint
          total: decimal(20, 0)
          at: timestamptz  # rows finer than a microsecond are refused
          name: text
          list: bigint[]
    "#);
    let truncated = folder.error("cut.parquet", &bytes[..bytes.len() / 2]);
    assert_eq!((truncated.kind(), truncated.to_string().contains("isn't whole Parquet")), (ErrorKind::External, true));
    assert_eq!(folder.error("packed.parquet.gz", &bytes).kind(), ErrorKind::Usage);
}

#[test]
fn files_that_propose_nothing_say_why() {
    let folder = Folder::new();
    for (name, bytes, expected) in [
        ("empty.csv", &b""[..], "the file is empty"),
        ("empty.json", b"\n", "the file is empty"),
        ("array.json", b"[{\"a\": 1}]", "one JSON array"),
        ("pretty.json", b"{\n  \"a\": 1\n}\n", "no line of the file is a JSON object"),
        ("book.xlsx", b"PK", "the ending doesn't say"),
        ("plain", b"a,b", "the ending doesn't say"),
        ("binary.csv", b"\x00\x00\x00\x00abc", "isn't text"),
        ("reserved.csv", b"_offset\nx\n", "no column was found: left out: Tidemill adds"),
        ("wide.csv", [b"a".as_slice(); 2001].join(&b","[..]).as_slice(), "2001 columns are more"),
    ] {
        let error = folder.error(name, bytes);
        assert!(error.to_string().contains(expected), "{name}: {error}");
        assert!(error.to_string().contains(name), "{name}: {error}");
        assert_eq!(error.kind(), ErrorKind::Usage, "{name}");
    }
    assert_eq!(infer(&[folder.0.path().join("gone.csv")]).unwrap_err().kind(), ErrorKind::Usage);
    assert_eq!(folder.error("bad.csv.gz", "no gzip").kind(), ErrorKind::External);
}

#[test]
fn a_long_file_is_sampled() {
    let rows: String = (0..20_000).map(|row| format!("{row},{}\n", if row < 15_000 { "1" } else { "x" })).collect();
    let (yaml, refused) = Folder::new().propose("long.csv", format!("id,n\n{rows}"));
    assert!(yaml.contains("n: bigint\n"), "{yaml}");
    assert_eq!(refused, 5_000, "what comes after the sample is for the quarantine");
}

fn cell() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => "-?[0-9]{1,20}",
        3 => "-?[0-9]{0,4}[.,][0-9]{0,4}",
        1 => "[0-9]\\.[0-9]e-?[0-9]{1,3}",
        3 => "[0-3]?[0-9]/[0-3]?[0-9]/(20)?[0-9]{2}( [0-2]?[0-9]:[0-5][0-9])?",
        2 => "20[0-9]{2}-[01][0-9]-[0-3][0-9]([ T][0-2][0-9]:[0-5][0-9](:[0-5][0-9](\\.[0-9]{1,7})?)?( ?UTC|Z|[+-]0[0-9]:00)?)?",
        1 => "true|false|NaN|N/A|null",
        1 => Just(String::new()),
        2 => "[ -~äß\n]{0,8}",
    ]
}

fn table() -> impl Strategy<Value = (u8, Vec<Vec<String>>)> {
    // Few distinct cells, so that whole columns are often of one kind.
    let column = proptest::collection::vec(cell(), 1..3)
        .prop_flat_map(|cells| proptest::collection::vec(proptest::sample::select(cells), 12));
    (proptest::sample::select(vec![b',', b';', b'\t', b'|']), proptest::collection::vec(column, 2..5), 1..12usize)
        .prop_map(|(delimiter, columns, rows)| {
            let row = |row: usize| columns.iter().map(|column| column[row].clone()).collect();
            (delimiter, (0..rows).map(row).collect())
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_sampled_row_fits((delimiter, rows) in table()) {
        let delimiter = char::from(delimiter).to_string();
        let quoted = |cell: &String| if cell.is_empty() { String::new() } else { format!("\"{}\"", cell.replace('"', "\"\"")) };
        let header: Vec<String> = (0..rows[0].len()).map(|column| format!("name{column}")).collect();
        let mut csv = format!("{}\n", header.join(&delimiter));
        for row in &rows {
            csv.push_str(&row.iter().map(quoted).collect::<Vec<_>>().join(&delimiter));
            csv.push('\n');
        }
        let (yaml, refused) = Folder::new().propose("t.csv", &csv);
        prop_assert_eq!(refused, 0, "{}\n{}", csv, yaml);
    }

    #[test]
    fn every_sampled_object_fits(rows in proptest::collection::vec(proptest::collection::btree_map("[a-c][a-c$#:\" é]?", json(), 1..4), 1..6)) {
        let lines: String = rows.iter().map(|row| {
            let entries: Vec<String> = row.iter().map(|(key, value)| format!("{}: {value}", serde_json::to_string(key).unwrap())).collect();
            format!("{{{}}}\n", entries.join(", "))
        }).collect();
        let (yaml, refused) = Folder::new().propose("t.jsonl", &lines);
        prop_assert_eq!(refused, 0, "{}\n{}", lines, yaml);
    }
}

fn json() -> impl Strategy<Value = String> {
    prop_oneof![
        "-?(0|[1-9][0-9]{0,18})",
        "-?(0|[1-9][0-9]{0,4})\\.[0-9]{1,20}",
        "[1-9][eE][+-]?[0-9]{1,2}",
        "true|false|null",
        cell().prop_map(|text| serde_json::to_string(&text).unwrap()),
        "\\[[0-9]\\]",
    ]
}

fn files_of(source: &SourceSpec) -> &FilesSpec {
    let ConnectorSpec::Files(spec) = &source.connector else { panic!("{source:?}") };
    spec
}
