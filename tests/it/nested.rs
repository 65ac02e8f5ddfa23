//! Lists, structs and JSON text in columns: read exactly, maintained as in batch, kept and shown as they are.

use crate::scratch::{Scratch, filtered};

const SOURCE: &str = "pipeline: sales
sources:
  orders:
    connector: files
    path: data/*.json
    format: json
    settle: 0s
    columns:
      id: { type: bigint, nullable: false }
      at: timestamptz
      items: struct<sku text, price decimal(12, 2), tags text[]>[]
      buyer: struct<name text, address struct<city text, zip text>>
      scores: array<bigint>
      payload: json
      note: text
";

const FIRST: &str = r#"{"id": 1, "at": "2026-01-01T00:00:00Z", "items": [{"sku": "a", "price": 1.50, "tags": ["x", null]}, {"sku": "b", "price": "2.25", "more": [1]}], "buyer": {"name": "Ana", "address": {"city": "Natal"}}, "scores": [1, 2], "payload": {"a": {"b": "x"}, "n": 12345678901234567890.10, "l": [1, {"p": 2.50}], "kind": "k"}, "note": "{\"x\": 1}"}
{"id": 2, "items": [], "buyer": null, "scores": [1, 2], "payload": [1.0, "z"], "note": {"x": [1, 2]}}
{"id": 3, "items": [{"sku": "a", "price": 10}, null], "buyer": {"name": "Bo"}, "payload": {"a": {"b": "x"}, "n": 7, "kind": "k"}}
"#;

/// A project over `data/*.json` with these models.
fn project(models: &str) -> Scratch {
    let shop = Scratch::new(&format!("{SOURCE}models:\n{models}"));
    shop.write("data/1.json", FIRST);
    shop
}

/// The strategy that each model was last maintained by.
fn strategies(shop: &Scratch) -> Vec<String> {
    let outcomes = shop.exits(0, &["run", "--format", "json"]).json();
    outcomes.iter().map(|o| format!("{} {}", o["model"].as_str().unwrap(), o["strategy"].as_str().unwrap())).collect()
}

#[test]
fn values_are_kept_and_shown_as_they_are() {
    let shop = project("  whole: { sql: 'select id, items, buyer, scores, payload, note from orders', key: [id] }\n");
    shop.exits(0, &["run"]);
    let lines = shop.exits(0, &["query", "--format", "json", "select * from whole order by id"]).out;
    insta::assert_snapshot!("nested_json", lines);
    insta::assert_snapshot!("nested_csv", shop.rows("select * from whole order by id"));
    let table = shop.exits(0, &["query", "select id, items, scores from whole where id > 1 order by id"]).out;
    insta::assert_snapshot!("nested_table", table);
    // Both of Arrow's formats give the same rows back.
    for (format, file) in [("parquet", "out.parquet"), ("arrow", "out.arrow")] {
        shop.exits(0, &["query", "--format", format, "-o", file, "select * from whole order by id"]);
        assert!(shop.path(file).metadata().unwrap().len() > 500, "{format}");
    }
    shop.write("pipelines/again.yaml", "sources:\n  again: { connector: files, path: out.parquet, format: parquet, settle: 0s }\nmodels:\n  copy: { sql: 'select * from again', key: [id] }\n");
    shop.exits(0, &["run"]);
    assert_eq!(shop.exits(0, &["query", "--format", "json", "select * from copy order by id"]).out, lines);
    shop.exits(0, &["verify"]);
}

#[test]
fn windows_tell_lists_of_structs_apart_and_equal_ones_alike() {
    let shop = project(
        "  w:\n    sql: select id, first_value(id) over (partition by note order by at) as f, count(*) over (order by items) as c from orders\n",
    );
    let empty = "{\"id\": 1, \"items\": []}\n";
    shop.write("data/1.json", format!("{empty}{empty}{{\"id\": 2, \"items\": [{{\"sku\": \"a\"}}]}}\n"));
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select * from w order by id"), "1,1,2\n1,1,2\n2,1,3\n");
    shop.write("data/2.json", "{\"id\": 0, \"items\": []}\n");
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select * from w order by id"), "0,0,3\n1,0,3\n1,0,3\n2,0,4\n");
    shop.exits(0, &["verify"]);
}

#[test]
fn what_does_not_fit_is_quarantined_with_its_path() {
    let shop = project("  whole: { sql: 'select id, items from orders', key: [id] }\n");
    shop.write(
        "data/2.json",
        r#"{"id": 4, "items": [{"price": 1}, {"price": 1}, {"sku": "q", "price": 1.005}]}
{"id": 5, "items": "none"}
{"id": 6, "buyer": {"name": 7, "address": [1]}}
{"id": 7, "scores": [1, 2.5], "payload": "text"}
{"id": 8, "items": [{"tags": ["\ud800"]}]}
{"id": 9, "buyer": {"name": "A", "name": "B", "address": {"zip": 59000}}, "scores": null, "payload": null}
"#,
    );
    shop.exits(0, &["run"]);
    insta::assert_snapshot!(
        "nested_quarantine",
        shop.rows("select id, items, _reason, _source_row from orders_quarantine order by id")
    );
    assert_eq!(shop.rows("select id from whole order by id"), "1\n2\n3\n9\n");
    let last =
        "select buyer['name'], buyer['address']['zip'], payload is null, scores is null from orders where id = 9";
    assert_eq!(shop.rows(last), "B,59000,true,true\n");
}

#[test]
fn a_rule_of_a_model_keeps_its_rows_as_json() {
    let shop = project(
        "  whole:\n    sql: select id, items, payload, buyer from orders\n    checks: [ { name: few, check: \"(payload -> 'a' ->> 'b' is distinct from 'x') or id > 1\", on_fail: quarantine } ]\n",
    );
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select id from whole order by id"), "2\n3\n");
    insta::assert_snapshot!(
        "nested_model_quarantine",
        shop.rows("select id, items, payload, buyer, _rule from whole_quarantine")
    );
    shop.exits(0, &["verify"]);
}

/// What changes round by round: files come, go and are written anew.
fn round(shop: &Scratch, at: usize) {
    let skus = ["a", "b", "c", "d"];
    let lines = |from: usize, to: usize| -> String {
        (from..to)
            .map(|id| {
                let sku = |n: usize| skus[(id * 7 + n * 3 + at) % skus.len()];
                let scores = ["[1, 2]", "[]", "null", "[1, null]", "[3]"][id % 5];
                let buyer = ["{\"name\": \"Ana\", \"address\": {\"city\": \"Natal\"}}", "null", "{\"name\": \"Bo\"}", "{}"][id % 4];
                format!(
                    "{{\"id\": {id}, \"at\": \"2026-01-0{}T00:00:00Z\", \"items\": [{{\"sku\": \"{}\", \"price\": {}.{:02}}}, {{\"sku\": \"{}\", \"price\": 1}}], \"buyer\": {buyer}, \"scores\": {scores}, \"payload\": {{\"a\": {{\"b\": \"{}\"}}, \"n\": {}, \"l\": [{{\"p\": {id}}}], \"kind\": \"{}\"}}}}\n",
                    at + 1, sku(0), id % 50, id % 100, sku(1), sku(2), id % 7, ["k", "z"][id % 2],
                )
            })
            .collect()
    };
    match at {
        0..3 => shop.write(&format!("data/r{at}.json"), lines(1000 * (at + 1), 1000 * (at + 1) + 120 / (at + 1))),
        3 => shop.write("data/r2.json", lines(3010, 3035)),
        _ => shop.remove("data/r1.json"),
    }
}

#[test]
fn nested_values_are_maintained_as_in_batch() {
    let shop = project(
        "  lines: { sql: \"select id, i['sku'] as sku, i['price'] as price from (select id, unnest(items) as i from orders)\" }
  per_sku:
    sql: select i['sku'] as sku, count(*) as n, sum(i['price']) as price from (select unnest(items) as i from orders) group by 1
  per_b:
    sql: select payload -> 'a' ->> 'b' as b, count(*) as n, sum(json_get_int(payload, 'n')) as s from orders where payload ->> 'kind' = 'k' group by payload -> 'a' ->> 'b'
  reached:
    sql: select id, payload -> 'a' ->> 'b' as b, cast(payload ->> 'n' as decimal(38, 10)) as n, payload -> 'l' as l, payload -> 'l' -> -1 ->> 'p' as p, note ->> 'x' as x from orders
    key: [id]
  whole: { sql: \"select id, items, buyer, scores, payload, buyer['address']['city'] as city, array_length(scores) as c, scores[1] as s from orders\", key: [id] }
  cities: { sql: 'select (buyer).address.city as city, count(*) as n from orders group by 1' }
  by_list: { sql: 'select scores, count(*) as n from orders group by scores' }
  by_struct: { sql: 'select buyer, count(*) as n, sum(id) as m from orders group by buyer' }
  different: { sql: 'select distinct scores, buyer from orders' }
  same_list: { sql: 'select a.id, b.n from orders a join by_list b on a.scores = b.scores' }
  ranked: { sql: \"select id, row_number() over (partition by payload ->> 'kind', scores order by at, id) as r, items from orders\" }
  undeclared: { sql: \"select j ->> 'p' as p, count(*) as n from (select unnest(json_get_array(payload, 'l')) as j from orders) group by 1\" }
  listed: { sql: \"select payload ->> 'kind' as kind, array_agg(buyer) as names, count(distinct scores) as c from orders group by 1\" }
",
    );
    for at in 0..5 {
        round(&shop, at);
        let seen = strategies(&shop);
        if at > 1 {
            insta::allow_duplicates! { insta::assert_snapshot!("nested_strategies", seen.join("\n")) }
        }
        shop.exits(0, &["verify"]);
    }
    assert_eq!(
        shop.rows("select count(*), sum(n) from per_sku"),
        shop.rows("select count(distinct coalesce(sku, '')), count(*) from lines")
    );
    assert_eq!(shop.rows("select sum(n) from by_list"), shop.rows("select count(*) from orders"));
    let exact = "select n, l, p, x from reached where id < 4 order by id";
    assert_eq!(
        shop.rows(exact),
        "12345678901234567890.1000000000,\"[1, {\"\"p\"\": 2.50}]\",2.50,1\n,,,\"[1, 2]\"\n7.0000000000,,,\n"
    );
}

#[test]
fn csv_may_hold_json_text() {
    let shop = Scratch::new(
        "sources:\n  events:\n    connector: files\n    path: data/*.csv\n    format: csv\n    settle: 0s\n    columns: { id: bigint, payload: json }\nmodels:\n  kinds: { sql: \"select payload ->> 'kind' as kind, count(*) as n from events group by 1\" }\n",
    );
    shop.write("data/1.csv", "id,payload\n1,\"{\"\"kind\"\": \"\"a\"\"}\"\n2,{kind\n3,\n4,[1]\n");
    shop.exits(0, &["run"]);
    assert_eq!(shop.rows("select kind, n from kinds order by n"), "a,1\n,2\n");
    assert_eq!(shop.rows("select id, _reason from events_quarantine"), "2,payload: {kind isn't JSON\n");
}

#[test]
fn wrong_uses_are_told() {
    let shop = project(
        "  op: { sql: \"select buyer ->> 'name' as n from orders\" }
  list: { sql: \"select scores -> 0 as n from orders\" }
  field: { sql: \"select buyer['nam'] as n from orders\" }
  most: { sql: 'select max(buyer) as m from orders' }
  parted: { sql: 'select id, scores from orders', partition_by: [scores] }
  keyed: { sql: 'select buyer, count(*) as n from orders group by buyer', key: [buyer] }
",
    );
    filtered(|| insta::assert_snapshot!("nested_plan_faults", shop.exits(2, &["validate"]).err));
}

#[test]
fn unit_tests_give_nested_values_as_json() {
    let shop = project(
        "  per_sku:\n    sql: select i['sku'] as sku, sum(i['price']) as price from (select unnest(items) as i from orders where payload ->> 'kind' = 'k') group by 1\n",
    );
    shop.write(
        "tests/a.yaml",
        r#"tests:
  - name: sums
    model: per_sku
    given:
      orders:
        - { id: 1, items: '[{"sku": "a", "price": 1.50}, {"sku": "a", "price": 2}]', payload: '{"kind": "k"}' }
        - { id: 2, items: '[{"sku": "a", "price": 9}]', payload: '{}' }
    expect:
      rows:
        - { sku: a, price: 3.50 }
"#,
    );
    let seen = shop.exits(0, &["test"]);
    assert!(seen.out.contains("sums"), "{}", seen.out);
    shop.write(
        "tests/a.yaml",
        "tests:\n  - name: sums\n    model: per_sku\n    given:\n      orders:\n        - { id: 1, items: '[{\"price\": 1.505}]' }\n    expect: { rows: [] }\n",
    );
    insta::assert_snapshot!("nested_unit_test", shop.exits(2, &["test"]).err);
}

#[cfg(feature = "kafka")]
#[test]
fn messages_hold_lists_and_structs() {
    use crate::kafka_server::{Kafka, Message};
    let kafka = Kafka::shared();
    let (plain, connect) = (kafka.topic("nested"), kafka.topic("nested_connect"));
    kafka.create_topic(&plain, 1);
    kafka.create_topic(&connect, 1);
    let source = |name: &str, topic: &str, format: &str| {
        format!(
            "  {name}:\n    connector: kafka\n    brokers: \"{}\"\n    topic: {topic}\n    format: {format}\n    columns: {{ id: bigint, items: \"struct<sku text, price decimal(12, 2), day date>[]\", more: json }}\n",
            kafka.brokers()
        )
    };
    let per_sku = |name: &str, from: &str| {
        format!(
            "  {name}: {{ sql: \"select i['sku'] as sku, sum(i['price']) as price, max(i['day']) as day from (select unnest(items) as i from {from}) group by 1\", key: [sku] }}\n"
        )
    };
    let shop = Scratch::new(&format!(
        "sources:\n{}{}models:\n{}{}  reached: {{ sql: \"select id, more -> 'l' ->> 0 as n from plain union all select id, more ->> 'n' from connect\" }}\n",
        source("plain", &plain, "json"),
        source("connect", &connect, "connect-json"),
        per_sku("per_sku", "plain"),
        per_sku("per_sku_connect", "connect"),
    ));
    let send = |topic: &str, value: String| {
        kafka.produce(topic, &[Message { partition: Some(0), value: Some(value.into_bytes()), ..Message::default() }]);
    };
    let enveloped = |id: usize| {
        let price = r#"{"field":"price","type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"}}"#;
        let day = r#"{"field":"day","type":"int32","name":"org.apache.kafka.connect.data.Date"}"#;
        format!(
            r#"{{"schema":{{"type":"struct","fields":[{{"field":"id","type":"int64"}},{{"field":"items","type":"array","items":{{"type":"struct","fields":[{{"field":"sku","type":"string"}},{price},{day}]}}}}]}},"payload":{{"id":{id},"items":[{{"sku":"a","price":"JxA=","day":{id}}},{{"sku":"b","price":"/w==","day":null}}],"more":{{"n":1.10}}}}}}"#
        )
    };
    for round in 0..3 {
        for id in round * 10..round * 10 + 10 {
            send(
                &plain,
                format!(
                    r#"{{"id":{id},"items":[{{"sku":"a","price":0.{id:02},"day":"1970-01-02"}},{{"sku":"b","price":1}}],"more":{{"l":[1.{id:02}0]}}}}"#
                ),
            );
            send(&connect, enveloped(id));
        }
        let outcomes = shop.exits(0, &["run", "--format", "json"]).json();
        assert!(round < 2 || outcomes.iter().all(|outcome| outcome["strategy"] == "incremental"), "{outcomes:?}");
        shop.exits(0, &["verify"]);
    }
    assert_eq!(shop.rows("select * from per_sku order by sku"), "a,4.35,1970-01-02\nb,30.00,\n");
    assert_eq!(shop.rows("select * from per_sku_connect order by sku"), "a,3000.00,1970-01-30\nb,-0.30,\n");
    assert_eq!(shop.rows("select n, count(*) from reached where id = 7 group by n order by n"), "1.070,1\n1.10,1\n");
    send(&plain, r#"{"id":100,"items":[{"sku":"a"},{"price":"1.001"}]}"#.to_string());
    shop.exits(0, &["run"]);
    let refused = "select id, _offset, _reason from plain_quarantine";
    assert_eq!(
        shop.rows(refused),
        "100,30,\"items[1].price: 1.001 doesn't fit decimal(12, 2): 3 digits after the point\"\n"
    );
}
