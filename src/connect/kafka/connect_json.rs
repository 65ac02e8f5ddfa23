//! Kafka Connect's JSON: `{"schema": …, "payload": …}`, with its logical types as plain text. Knows no client.
//!
//! What has no logical type keeps its text, so that no number is rounded.

use std::borrow::Cow;
use std::fmt::Write as _;

use base64::Engine as _;
use serde_json::Value;

use crate::plan::json_text::{Members, items};

/// The payload as JSON that a contract can read; none for a null one. A message without a schema is its own payload.
///
/// Decimals stand as unscaled bytes in base64, dates as days, times and timestamps as milliseconds since 1970 or midnight, as
/// Kafka's `org.apache.kafka.connect.data` types define them.
pub(super) fn payload(message: &[u8]) -> Result<Option<Cow<'_, str>>, String> {
    let text = std::str::from_utf8(message).map_err(|_| "the bytes aren't UTF-8".to_string())?.trim_ascii();
    let bare = |text| Ok(Some(Cow::Borrowed(text)).filter(|text| *text != "null"));
    if !text.starts_with('{') {
        return bare(text);
    }
    let members = Members::parse(text).map_err(|e| format!("not JSON: {e}"))?;
    let (Some(schema), Some(payload), 2) = (members.get("schema"), members.get("payload"), members.iter().count())
    else {
        return bare(text);
    };
    if payload == "null" {
        return Ok(None);
    }
    let schema: Value = serde_json::from_str(schema).map_err(|e| format!("not JSON: {e}"))?;
    plain(payload, &schema).map(Some)
}

/// A value with its logical types written as text.
fn plain<'a>(value: &'a str, schema: &Value) -> Result<Cow<'a, str>, String> {
    if value == "null" {
        return Ok(Cow::Borrowed(value));
    }
    let scalar = || serde_json::from_str::<Value>(value).map_err(|e| format!("not JSON: {e}"));
    let logical = match schema["name"].as_str().unwrap_or_default() {
        "org.apache.kafka.connect.data.Decimal" => Some(decimal(&scalar()?, schema)?),
        "org.apache.kafka.connect.data.Date" => Some(date(&scalar()?)?),
        "org.apache.kafka.connect.data.Time" => Some(time(&scalar()?)?),
        "org.apache.kafka.connect.data.Timestamp" => Some(timestamp(&scalar()?)?),
        _ => None,
    };
    if let Some(text) = logical {
        return Ok(Cow::Owned(Value::String(text).to_string()));
    }
    match (schema["type"].as_str(), value.as_bytes().first()) {
        (Some("struct"), Some(b'{')) => {
            let fields = schema["fields"].as_array();
            object(value, |name| fields.and_then(|all| all.iter().find(|field| field["field"] == name)))
        }
        (Some("map"), Some(b'{')) => object(value, |_| Some(&schema["values"])),
        (Some("array"), Some(b'[')) => list(items(value)?.into_iter().map(|item| (item, &schema["items"]))),
        // A map whose keys aren't text is a list of pairs.
        (Some("map"), Some(b'[')) => {
            let pair = |pair| list(items(pair)?.into_iter().zip([&schema["keys"], &schema["values"]]));
            let pairs = items(value)?.into_iter().map(pair).collect::<Result<Vec<_>, String>>()?;
            Ok(Cow::Owned(format!("[{}]", pairs.join(","))))
        }
        (Some("bytes"), Some(b'"')) => {
            let scalar = scalar()?;
            let text = scalar.as_str().unwrap_or_default();
            let bytes = base64::engine::general_purpose::STANDARD.decode(text);
            let bytes = bytes.map_err(|_| format!("`{text}` isn't base64"))?;
            let hex = bytes.iter().fold(String::from("\\x"), |text, byte| text + &format!("{byte:02x}"));
            Ok(Cow::Owned(Value::String(hex).to_string()))
        }
        _ => Ok(Cow::Borrowed(value)),
    }
}

fn object<'a, 's>(value: &'a str, schema_of: impl Fn(&str) -> Option<&'s Value>) -> Result<Cow<'a, str>, String> {
    let mut out = String::from("{");
    for (name, value) in Members::parse(value)?.iter() {
        let value = match schema_of(name) {
            Some(schema) => plain(value, schema).map_err(|reason| format!("{name}: {reason}"))?,
            None => Cow::Borrowed(value),
        };
        // Writing to a text can't fail.
        let _ = write!(out, "{}{}:{value}", if out.len() > 1 { "," } else { "" }, Value::from(name));
    }
    out.push('}');
    Ok(Cow::Owned(out))
}

fn list<'a, 's>(values: impl Iterator<Item = (&'a str, &'s Value)>) -> Result<Cow<'a, str>, String> {
    let values = values.map(|(value, schema)| plain(value, schema)).collect::<Result<Vec<_>, String>>()?;
    Ok(Cow::Owned(format!("[{}]", values.join(","))))
}

fn decimal(value: &Value, schema: &Value) -> Result<String, String> {
    let Value::String(text) = value else { return Ok(value.to_string()) };
    let scale = match &schema["parameters"]["scale"] {
        Value::String(text) => text.parse::<i64>().map_err(|_| format!("the scale `{text}` isn't a number"))?,
        other => other.as_i64().unwrap_or(0),
    };
    if scale.unsigned_abs() > 38 {
        return Err(format!("a decimal with {scale} digits after its point"));
    }
    let bytes = base64::engine::general_purpose::STANDARD.decode(text);
    let bytes = bytes.map_err(|_| format!("`{text}` isn't base64"))?;
    let bytes = without_sign_bytes(&bytes);
    if bytes.len() > 16 {
        return Err("a decimal of more than 38 digits".into());
    }
    let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let mut whole = [if negative { 0xff } else { 0 }; 16];
    whole[16 - bytes.len()..].copy_from_slice(bytes);
    let unscaled = i128::from_be_bytes(whole);
    // A negative scale is that of a multiple of ten.
    let (scale, zeros) = (scale.max(0) as usize, scale.min(0).unsigned_abs() as usize);
    let digits = format!("{:0>width$}{:0<zeros$}", unscaled.unsigned_abs(), "", width = scale + 1);
    let (integer, fraction) = digits.split_at(digits.len() - scale);
    let sign = if negative { "-" } else { "" };
    Ok(if scale == 0 { format!("{sign}{integer}") } else { format!("{sign}{integer}.{fraction}") })
}

/// A number's bytes, the most significant one first, without those that only repeat its sign: producers may fill up to any width.
fn without_sign_bytes(mut bytes: &[u8]) -> &[u8] {
    while let [fill @ (0 | 0xff), rest @ ..] = bytes {
        if rest.first().is_none_or(|next| next & 0x80 != fill & 0x80) {
            break;
        }
        bytes = rest;
    }
    bytes
}

fn whole_number(value: &Value) -> Result<i64, String> {
    value.as_i64().ok_or_else(|| format!("{value} isn't a whole number"))
}

fn date(value: &Value) -> Result<String, String> {
    let days = whole_number(value)?;
    let date = chrono::Duration::try_days(days).and_then(|d| chrono::NaiveDate::default().checked_add_signed(d));
    date.map(|date| date.to_string()).ok_or_else(|| format!("{days} days are outside of the calendar"))
}

fn time(value: &Value) -> Result<String, String> {
    let ms = whole_number(value)?;
    let day = 24 * 60 * 60 * 1000;
    if !(0..day).contains(&ms) {
        return Err(format!("{ms} ms aren't within a day"));
    }
    Ok(format!("{:02}:{:02}:{:02}.{:03}", ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000))
}

fn timestamp(value: &Value) -> Result<String, String> {
    let ms = whole_number(value)?;
    let instant =
        chrono::DateTime::from_timestamp_millis(ms).ok_or_else(|| format!("{ms} ms are outside of the calendar"))?;
    Ok(instant.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string())
}

#[cfg(test)]
mod tests {
    use super::payload;

    #[test]
    fn logical_types_become_text() {
        let message = r#"{"schema":{"type":"struct","fields":[
            {"field":"id","type":"int64"},
            {"field":"price","type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"}},
            {"field":"loss","type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"3"}},
            {"field":"day","type":"int32","name":"org.apache.kafka.connect.data.Date"},
            {"field":"clock","type":"int32","name":"org.apache.kafka.connect.data.Time"},
            {"field":"at","type":"int64","name":"org.apache.kafka.connect.data.Timestamp"},
            {"field":"raw","type":"bytes"},
            {"field":"note","type":"string","optional":true}]},
          "payload":{"id":7,"price":"JxA=","loss":"/w==","day":-1,"clock":3723004,"at":1500000000123,"raw":"AP8=","note":null}}"#;
        let plain: serde_json::Value = serde_json::from_str(&payload(message.as_bytes()).unwrap().unwrap()).unwrap();
        let expected = serde_json::json!({"id": 7, "price": "100.00", "loss": "-0.001", "day": "1969-12-31",
            "clock": "01:02:03.004", "at": "2017-07-14T02:40:00.123Z", "raw": "\\x00ff", "note": null});
        assert_eq!(plain, expected);
        assert_eq!(payload(br#"{"schema":null,"payload":null}"#).unwrap(), None);
        assert_eq!(payload(br#"{"id":1}"#).unwrap().unwrap(), r#"{"id":1}"#);
        assert_eq!(
            payload(br#" {"d": 12345678901234567890.10} "#).unwrap().unwrap(),
            r#"{"d": 12345678901234567890.10}"#
        );
    }

    #[test]
    fn decimals_have_any_scale_that_fits() {
        let with_scale = |scale: &str, bytes: &str| {
            let schema = serde_json::json!({ "parameters": { "scale": scale } });
            super::decimal(&serde_json::Value::String(bytes.into()), &schema)
        };
        assert_eq!(with_scale("38", "AQ==").unwrap(), format!("0.{}1", "0".repeat(37)));
        assert_eq!(with_scale("-2", "/w==").unwrap(), "-100");
        for scale in ["39", "-39", "70000", "9223372036854775807", "-9223372036854775808", "two"] {
            assert!(with_scale(scale, "AQ==").is_err(), "{scale}");
        }
    }

    #[test]
    fn bytes_that_only_repeat_a_decimals_sign_are_no_digits() {
        use base64::Engine as _;
        let decimal = |bytes: &[u8]| {
            let text = base64::engine::general_purpose::STANDARD.encode(bytes);
            super::decimal(&text.into(), &serde_json::json!({ "parameters": { "scale": "2" } }))
        };
        let wide = |fill: u8, last: &[u8]| [vec![fill; 20], last.to_vec()].concat();
        assert_eq!(decimal(&wide(0, &[7])).unwrap(), "0.07");
        assert_eq!(decimal(&wide(0, &[0])).unwrap(), "0.00");
        assert_eq!(decimal(&wide(0xff, &[0xff])).unwrap(), "-0.01");
        // The byte after those of the sign has another one: it stays what it is.
        assert_eq!(decimal(&wide(0, &[0x80])).unwrap(), "1.28");
        assert_eq!(decimal(&wide(0xff, &[0x7f])).unwrap(), "-1.29");
        assert_eq!(decimal(&[]).unwrap(), "0.00");
        assert!(decimal(&wide(1, &[0])).is_err());
        let widest = [&[0][..], &[0x7f], &[0xff; 15]].concat();
        assert_eq!(decimal(&widest).unwrap(), format!("{}.{:02}", i128::MAX / 100, i128::MAX % 100));
    }

    #[test]
    fn logical_types_inside_of_others_become_text() {
        let price = r#"{"type":"bytes","name":"org.apache.kafka.connect.data.Decimal","parameters":{"scale":"2"}}"#;
        let day = r#"{"type":"int32","name":"org.apache.kafka.connect.data.Date"}"#;
        let message = format!(
            r#"{{"schema":{{"type":"struct","fields":[
                {{"field":"items","type":"array","items":{{"type":"struct","fields":[{{"field":"price",{}]}}}},
                {{"field":"by_day","type":"map","keys":{day},"values":{price}}},
                {{"field":"by_name","type":"map","keys":{{"type":"string"}},"values":{day}}},
                {{"field":"rate","type":"double"}}]}},
              "payload":{{"items":[{{"price":"JxA="}},null,{{"price":null}}],"by_day":[[0,"/w=="]],
                "by_name":{{"a\"b":1}},"rate":1.10,"more":[1.0]}}}}"#,
            &price[1..]
        );
        assert_eq!(
            payload(message.as_bytes()).unwrap().unwrap(),
            r#"{"items":[{"price":"100.00"},null,{"price":null}],"by_day":[["1970-01-01","-0.01"]],"by_name":{"a\"b":"1970-01-02"},"rate":1.10,"more":[1.0]}"#
        );
    }
}
