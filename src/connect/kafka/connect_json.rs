//! Kafka Connect's JSON: `{"schema": …, "payload": …}`, with its logical types as plain text. Knows no client.

use base64::Engine as _;
use serde_json::{Map, Value};

/// The payload as a JSON object that a contract can read; none for a null one. A message without a schema is its own payload.
///
/// Decimals stand as unscaled bytes in base64, dates as days, times and timestamps as milliseconds since 1970 or midnight, as
/// Kafka's `org.apache.kafka.connect.data` types define them.
pub(super) fn payload(message: &[u8]) -> Result<Option<String>, String> {
    let value: Value = serde_json::from_slice(message).map_err(|e| format!("not JSON: {e}"))?;
    let Value::Object(mut object) = value else { return Ok((!value.is_null()).then(|| value.to_string())) };
    let is_enveloped = object.len() == 2 && object.contains_key("schema") && object.contains_key("payload");
    if !is_enveloped {
        return Ok(Some(Value::Object(object).to_string()));
    }
    let schema = object.remove("schema").unwrap_or_default();
    match object.remove("payload").unwrap_or_default() {
        Value::Null => Ok(None),
        payload => plain(payload, &schema).map(|payload| Some(payload.to_string())),
    }
}

/// A value with its logical types written as text.
fn plain(value: Value, schema: &Value) -> Result<Value, String> {
    if value.is_null() {
        return Ok(value);
    }
    let name = schema["name"].as_str().unwrap_or_default();
    match name {
        "org.apache.kafka.connect.data.Decimal" => return decimal(&value, schema).map(Value::String),
        "org.apache.kafka.connect.data.Date" => return date(&value).map(Value::String),
        "org.apache.kafka.connect.data.Time" => return time(&value).map(Value::String),
        "org.apache.kafka.connect.data.Timestamp" => return timestamp(&value).map(Value::String),
        _ => {}
    }
    match (value, schema["type"].as_str()) {
        (Value::Object(fields), Some("struct")) => {
            let mut out = Map::new();
            for (field, value) in fields {
                let of = schema["fields"].as_array().and_then(|all| all.iter().find(|s| s["field"] == field.as_str()));
                let value = match of {
                    Some(schema) => plain(value, schema).map_err(|reason| format!("{field}: {reason}"))?,
                    None => value,
                };
                out.insert(field, value);
            }
            Ok(Value::Object(out))
        }
        (Value::Array(items), Some("array")) => {
            items.into_iter().map(|item| plain(item, &schema["items"])).collect::<Result<_, _>>().map(Value::Array)
        }
        (Value::String(text), Some("bytes")) => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(&text);
            let bytes = bytes.map_err(|_| format!("`{text}` isn't base64"))?;
            Ok(Value::String(bytes.iter().fold(String::from("\\x"), |text, byte| text + &format!("{byte:02x}"))))
        }
        (value, _) => Ok(value),
    }
}

fn decimal(value: &Value, schema: &Value) -> Result<String, String> {
    let Value::String(text) = value else { return Ok(value.to_string()) };
    let scale = match &schema["parameters"]["scale"] {
        Value::String(text) => text.parse::<usize>().map_err(|_| format!("the scale `{text}` isn't a number"))?,
        other => other.as_u64().and_then(|scale| usize::try_from(scale).ok()).unwrap_or(0),
    };
    let bytes = base64::engine::general_purpose::STANDARD.decode(text);
    let bytes = bytes.map_err(|_| format!("`{text}` isn't base64"))?;
    if bytes.len() > 16 {
        return Err("a decimal of more than 38 digits".into());
    }
    let negative = bytes.first().is_some_and(|byte| byte & 0x80 != 0);
    let mut whole = [if negative { 0xff } else { 0 }; 16];
    whole[16 - bytes.len()..].copy_from_slice(&bytes);
    let unscaled = i128::from_be_bytes(whole);
    let digits = format!("{:0>width$}", unscaled.unsigned_abs(), width = scale + 1);
    let (integer, fraction) = digits.split_at(digits.len() - scale);
    let sign = if negative { "-" } else { "" };
    Ok(if scale == 0 { format!("{sign}{integer}") } else { format!("{sign}{integer}.{fraction}") })
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
    }
}
