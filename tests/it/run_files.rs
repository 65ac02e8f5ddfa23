//! Files as people have them: dialects of CSV, JSON lines, Parquet of several schemas, landing folders.

use std::fs;

use crate::scratch::Scratch;

/// A source `rows` over `data/*` with these lines of YAML and these columns, and a model that copies it.
fn copied(source: &str, columns: &str, model: &str) -> Scratch {
    Scratch::new(&format!(
        "sources:\n  rows:\n    connector: files\n    path: data/*\n    settle: 0s\n{source}\n    columns:\n{columns}\nmodels:\n  copied:\n{model}\n"
    ))
}

const PEOPLE: &str = "      name: text\n      born: date\n      height: \"decimal(5, 2)\"";
const COPY: &str = "    sql: select name, born, height from rows";
const COPIED: &str = "select * from copied order by name";

#[test]
fn a_csv_of_another_country() {
    let lines = "    format: csv
    delimiter: ';'
    quote: \"'\"
    encoding: latin1
    decimal_separator: ','
    null_values: ['n/d', '-']
    timestamp_format: '%d.%m.%Y'";
    let shop = copied(lines, PEOPLE, COPY);
    shop.write(
        "data/1.csv",
        b"name;born;height\r\n'S\xe3o; Jos\xe9';31.12.1999;1,75\r\nn/d;-;1,5\r\n'';01.02.2000;-\r\n",
    );
    shop.exits(0, &["run"]);
    assert_eq!(
        shop.rows("select * from copied order by height nulls last"),
        ",,1.50\nSão; José,1999-12-31,1.75\n\"\",2000-02-01,\n"
    );
    assert_eq!(shop.rows("select count(*) from rows_quarantine"), "0\n");
}

#[test]
fn an_escape_inside_quotes_and_a_byte_order_mark() {
    let shop = copied(
        "    format: csv\n    escape: '\\'",
        "      name: text\n      note: text",
        "    sql: select name, note from rows",
    );
    shop.write("data/1.csv", "\u{feff}note,name\n\"a \\\"b\\\" c\",x\n");
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select name, note from copied"), "x,\"a \"\"b\"\" c\"\n");
}

#[test]
fn a_csv_without_a_header_goes_by_position() {
    let shop = copied("    format: csv\n    header: false", PEOPLE, COPY);
    shop.write("data/1.csv", "ana,2000-01-31,1.50\nbob,,\n");
    shop.write("data/2.csv", "cid,2001-02-28\n");
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows(COPIED), "ana,2000-01-31,1.50\nbob,,\n");
    assert_eq!(shop.rows("select _source_file, _source_row from rows_quarantine"), "data/2.csv,1\n");
}

#[test]
fn compressed_files_are_known_by_their_names() {
    let shop = copied("    format: csv", PEOPLE, COPY);
    let text = |name: &str| format!("name,born,height\n{name},2000-01-31,1.50\n");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut gzip, text("gz").as_bytes()).unwrap();
    let first = gzip.finish().unwrap();
    let mut second = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut second, b"second member,,\n").unwrap();
    shop.write("data/1.csv.gz", [first, second.finish().unwrap()].concat());
    shop.write("data/2.csv.zst", zstd::encode_all(text("zst").as_bytes(), 3).unwrap());
    shop.write("data/3.csv", text("plain"));
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select name from copied order by name"), "gz\nplain\nsecond member\nzst\n");

    let whole = fs::read(shop.path("data/1.csv.gz")).unwrap();
    shop.write("data/1.csv.gz", &whole[..30]);
    let seen = shop.exits(3, &["run"]);
    assert!(seen.err.contains("data/1.csv.gz"), "{}", seen.err);
    assert_eq!(shop.rows("select count(*) from copied"), "4\n");
}

#[test]
fn json_lines_go_by_name_and_keep_decimals_exact() {
    let columns = "      name: text\n      born: date\n      height: \"decimal(20, 10)\"\n      big: bigint";
    let shop = copied("    format: json", columns, "    sql: select name, born, height, big from rows");
    shop.write(
        "data/1.jsonl",
        r#"{"height":0.1000000001,"name":"ana","extra":[1,{"a":2}],"born":"2000-01-31","big":9007199254740993}
{"name":"bob","height":null}
{"name":"cid","height":1234567890.12345678901}
{"name":"dan",
{"name":"eve","big":1.5}
[1,2]
{"name":"fay\u00e9","big":12}
"#,
    );
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows(COPIED), "ana,2000-01-31,0.1000000001,9007199254740993\nbob,,,\nfayé,,,12\n");
    insta::assert_snapshot!(
        "json_refused",
        shop.rows("select _source_row, _reason, _raw from rows_quarantine order by 1")
    );
}

/// Rules and contract refuse the same rows of a Parquet file as of a CSV file, for the same reasons.
#[test]
fn rows_are_ruled_alike_in_every_format() {
    let rules = "    checks:
      - { name: priced, check: \"price > 0\", on_fail: quarantine }
      - { name: cheap, check: \"price < 100\", on_fail: warn }
    columns: { id: { type: bigint, nullable: false }, price: \"decimal(6, 2)\" }";
    let source = |format: &str| {
        format!(
            "sources:\n  rows:\n    connector: files\n    path: data/*.{format}\n    format: {format}\n    settle: 0s\n{rules}\n\
             models:\n  kept: {{ sql: \"select id, price, _source_row as at from rows\" }}\n"
        )
    };
    let (text, parquet) = (Scratch::new(&source("csv")), Scratch::new(&source("parquet")));
    text.write("data/1.csv", "id,price\n1,5\n,5\n3,-1\n4,\n5,200\n,-7\n7,1\n");
    let values = "(1, 5), (null, 5), (3, -1), (4, null), (5, 200), (null, -7), (7, 1)";
    let sql = format!("select column1 as id, cast(column2 as decimal(6, 2)) as price from (values {values})");
    parquet.exits(0, &["query", &sql, "-o", "made.parquet"]);
    parquet.write("data/1.parquet", fs::read(parquet.path("made.parquet")).unwrap());
    for shop in [&text, &parquet] {
        shop.exits(0, &["run"]);
        assert_eq!(shop.rows("select * from kept order by at"), "1,5.00,1\n4,,4\n5,200.00,5\n7,1.00,7\n");
        assert_eq!(
            shop.rows("select _source_row, _rule, _reason from rows_quarantine order by 1"),
            "2,contract,\"id: null, and the column isn't nullable\"\n3,priced,the check `priced` failed\n\
             6,contract,\"id: null, and the column isn't nullable\"\n"
        );
        let shown = shop.exits(0, &["show", "select id, _source_row from rows order by 2", "--format", "csv"]);
        assert_eq!(shown.out, "id,_source_row\n1,1\n4,4\n5,5\n7,7\n");
    }
}

#[test]
fn parquet_files_of_narrower_types_are_widened() {
    let columns = "      id: bigint\n      price: \"decimal(12, 2)\"\n      name: text";
    let shop = copied("    format: parquet", columns, "    sql: select id, price, name from rows");
    let maker = Scratch::new("models:\n  any:\n    sql: select 1 as one\n");
    maker.exits(0, &["run"]);
    let parquet = |sql: &str, to: &str| {
        maker.exits(0, &["query", sql, "-o", "made.parquet"]);
        shop.write(to, fs::read(maker.path("made.parquet")).unwrap());
    };
    parquet("select cast(1 as int) as id, cast(1.5 as decimal(4,1)) as price, 'a' as name", "data/1.parquet");
    parquet(
        "select 'b' as name, cast(20000000000 as bigint) as id, cast(2.25 as decimal(12,2)) as price, 7 as extra",
        "data/2.parquet",
    );
    parquet("select cast(3 as smallint) as id, cast(9.999 as decimal(6,3)) as price", "data/3.parquet");
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select * from copied order by id"), "1,1.50,a\n20000000000,2.25,b\n");
    insta::assert_snapshot!(
        "parquet_refused",
        shop.rows("select id, price, _reason, _source_file, _source_row from rows_quarantine")
    );
}

#[test]
fn hidden_columns_are_there_when_named() {
    let sql = "    sql: select name, _source_file as file, _source_row as row from rows";
    let shop = copied("    format: csv", PEOPLE, sql);
    shop.write("data/1.csv", "name,born,height\nana,,\nbob,x,\ncid,,\n");
    shop.write("data/2.csv", "name,born,height\n\"dan\n2\",,\neve,,\n");
    shop.exits(0, &["run"]);
    assert_eq!(
        shop.rows("select * from copied order by file, row"),
        "ana,data/1.csv,1\ncid,data/1.csv,3\n\"dan\n2\",data/2.csv,1\neve,data/2.csv,2\n"
    );
    shop.exits(0, &["show", "select _source_file, _source_row, _ingested_at, _topic, _partition, _offset from rows"]);
    let star = shop.exits(0, &["show", "--format", "csv", "select * from rows limit 1"]).out;
    assert!(star.starts_with("name,born,height\n"), "{star}");
}

#[test]
fn deduplicate_keeps_the_first_by_event_time() {
    let columns = "      id: bigint\n      at: timestamp\n      name: text";
    let lines = "    format: csv\n    event_time: at\n    deduplicate: [id]";
    let shop = copied(lines, columns, "    sql: select id, at, name from rows\n    key: [id]");
    shop.write(
        "data/1.csv",
        "id,at,name\n1,2020-01-02 00:00:00,late\n2,2020-01-01 00:00:00,b\n2,2020-01-01 00:00:00,a\n",
    );
    shop.write("data/2.csv", "id,at,name\n1,2020-01-01 00:00:00,early\n");
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select id, name from copied order by id"), "1,early\n2,a\n", "ties by the other columns");
}

#[test]
fn partitions_are_folders_and_columns_stay() {
    let shop =
        copied("    format: csv", PEOPLE, "    sql: select name, born, height from rows\n    partition_by: [born]");
    shop.write("data/1.csv", "name,born,height\nana,2000-01-31,1.5\nbob,2000-02-01,1.6\ncid,,\n");
    shop.exits(0, &["run"]);
    assert!(shop.path("warehouse/copied/born=2000-01-31").is_dir());
    assert_eq!(shop.rows(COPIED), "ana,2000-01-31,1.50\nbob,2000-02-01,1.60\ncid,,\n");
    assert_eq!(shop.rows("select name from copied where born = date '2000-02-01'"), "bob\n");
    shop.write("data/1.csv", "name,born,height\nana,2000-01-31,1.5\ncid,2000-03-01,\n");
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows(COPIED), "ana,2000-01-31,1.50\ncid,2000-03-01,\n");
}

/// A landing folder with `after` as given.
fn landing(after: &str) -> Scratch {
    let shop = copied(&format!("    format: csv\n    mode: append\n{after}"), PEOPLE, COPY);
    shop.write("data/1.csv", "name,born,height\nana,,\n");
    shop.exits(0, &["run"]);
    shop
}

#[test]
fn a_landing_folders_files_are_taken_once_and_their_rows_stay() {
    let shop = landing("");
    assert!(shop.path("data/1.csv").is_file());
    shop.write("data/2.csv", "name,born,height\nbob,,\n");
    shop.remove("data/1.csv");
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select name from copied order by name"), "ana\nbob\n");
    shop.write("data/2.csv", "name,born,height\nbob,,\ncid,,\n");
    let seen = shop.exits(0, &["run"]);
    assert!(seen.err.contains("data/2.csv"), "{}", seen.err);
    assert_eq!(shop.rows("select name from copied order by name"), "ana\nbob\n", "what was taken stays as it was");
    shop.remove("data/2.csv");
    shop.exits(0, &["run", "--full-refresh"]);
    assert_eq!(shop.rows("select name from copied order by name"), "ana\nbob\n", "also under a full refresh");
}

#[test]
fn rows_whose_file_is_gone_are_never_cut_to_a_narrower_contract() {
    let shop = landing("    after: delete\n    allow_empty: true");
    shop.write("data/2.csv", "name,born,height\nbob,2000-02-01,1.65\n");
    shop.exits(0, &["run"]);
    let yaml = std::fs::read_to_string(shop.path("pipelines/sales.yaml")).unwrap();
    let rows = shop.rows(COPIED);
    for (from, to, reason) in [
        ("decimal(5, 2)", "decimal(5, 1)", "`height` was decimal(5, 2) and is decimal(5, 1)"),
        ("born: date", "born: { type: date, nullable: false }", "`born` is null in some of them, and may not be"),
    ] {
        let narrower = yaml.replace(from, to);
        assert_ne!(narrower, yaml);
        shop.write("pipelines/sales.yaml", narrower);
        let seen = shop.exits(3, &["run"]);
        assert!(seen.err.contains(reason) && seen.err.contains(".csv"), "{}", seen.err);
        assert_eq!(shop.rows(COPIED), rows);
    }
    shop.write("pipelines/sales.yaml", yaml.replace("decimal(5, 2)", "decimal(9, 2)"));
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows(COPIED), rows, "a wider one holds them");
}

#[test]
fn taken_files_are_deleted_or_moved_after_the_commit() {
    let shop = landing("    after: delete\n    allow_empty: true");
    assert!(!shop.path("data/1.csv").exists());
    assert_eq!(shop.rows("select name from copied"), "ana\n");
    assert_eq!(shop.statuses(0, &[]), ["copied nothing"]);

    let shop = landing("    after: { move: taken }\n    allow_empty: true");
    assert!(!shop.path("data/1.csv").exists());
    assert!(shop.path("taken/1.csv").is_file());
    shop.write("data/1.csv", "name,born,height\nbob,,\n");
    shop.exits(0, &["run"]);
    assert_eq!(
        shop.rows("select name from copied order by name"),
        "ana\nbob\n",
        "another file of the same name is another file"
    );
    assert_eq!(fs::read_dir(shop.path("taken")).unwrap().count(), 2, "and replaces none of those moved before");
}

#[test]
fn plan_names_columns_that_no_contract_has() {
    let source = |name: &str, format: &str| {
        format!(
            "  {name}: {{ connector: files, path: {name}/*, format: {format}, settle: 0s, columns: {{ id: bigint, city: text }} }}\n"
        )
    };
    let sources = [source("a", "csv"), source("b", "json"), source("c", "parquet"), source("d", "csv")].concat();
    let sql = "select id, city from a union all select id, city from b union all select id, city from c";
    let shop =
        Scratch::new(&format!("sources:\n{sources}models:\n  m:\n    sql: {sql}\n  n:\n    sql: select id from d\n"));
    shop.write("a/1.csv", "id,City,zip\n1,Natal,5\n");
    shop.write("b/1.json", "{\"id\":1,\"city\":\"Natal\"}\n{\"id\":2,\"ID\":3,\"at\":{\"x\":1}}\nnot JSON\n");
    shop.write("d/1.csv", "city,id\nNatal,1\n");
    shop.exits(0, &["query", "select 1 as id, 'Natal' as city, true as is_open", "-o", "made.parquet"]);
    shop.write("c/1.parquet", fs::read(shop.path("made.parquet")).unwrap());
    let told = "which are ignored";
    let seen = shop.exits(0, &["plan"]).out;
    for note in [
        "source a: file: 1 new\n  note: a/1.csv has columns that the contract lacks, which are ignored: `City` (`city` is declared, and case counts), `zip`\n",
        "source b: file: 1 new\n  note: b/1.json has columns that the contract lacks, which are ignored: `ID` (`id` is declared, and case counts), `at`\n",
        "source c: file: 1 new\n  note: c/1.parquet has columns that the contract lacks, which are ignored: `is_open`\n",
    ] {
        assert!(seen.contains(note), "{note}\n{seen}");
    }
    assert_eq!(seen.matches(told).count(), 3, "{seen}");
    let json = shop.exits(0, &["plan", "--format", "json"]).json();
    let ignored = |model: usize| json[model]["ignored_columns"].as_array().unwrap().clone();
    let city = serde_json::json!({ "source": "a", "file": "a/1.csv", "column": "City", "declared": "city" });
    assert_eq!((ignored(0).len(), &ignored(0)[0]), (5, &city));
    assert_eq!(json[1].get("ignored_columns"), None);
    shop.exits(0, &["run"]);
    let seen = shop.exits(0, &["plan"]).out;
    assert!(!seen.contains(told), "what is taken in was told: {seen}");
    // Of what came, the newest file tells.
    shop.write("d/2.csv", "city,id,more\nNatal,2,x\n");
    let seen = shop.exits(0, &["plan"]).out;
    assert!(seen.contains("note: d/2.csv has columns that the contract lacks, which are ignored: `more`\n"), "{seen}");
}

/// Rows of a source that were taken in and whose file is gone: what lacks them says so, and how to go on.
#[test]
fn rows_taken_in_that_are_gone_are_named_with_the_way_out() {
    let source = |name: &str| {
        format!(
            "  {name}: {{ connector: files, path: {name}/*.csv, format: csv, settle: 0s, columns: {{ k: bigint, v: bigint }} }}\n"
        )
    };
    let shop = Scratch::new(&format!(
        "pipeline: p\nsources:\n{}{}models:\n  m: {{ sql: \"select a.k, b.v from a join b on a.k = b.k\" }}\n",
        source("a"),
        source("b")
    ));
    shop.write("a/1.csv", "k,v\n1,1\n");
    shop.write("b/1.csv", "k,v\n1,2\n");
    shop.exits(0, &["run"]);
    let landed = shop.path("warehouse/_tidemill/p/landed/a");
    for file in std::fs::read_dir(landed).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    shop.write("b/2.csv", "k,v\n1,3\n");
    let seen = shop.exits(3, &["run"]);
    assert!(seen.err.contains("is gone, rows of a source that were taken in"), "{}", seen.err);
    assert!(seen.err.contains("`tidemill run m --full-refresh` takes them in again"), "{}", seen.err);
    shop.exits(0, &["run", "m", "--full-refresh"]);
    assert_eq!(shop.rows("select v from m order by v"), "2\n3\n");
    shop.exits(0, &["verify"]);
}
