//! Personal fields are shown masked.

use serde_json::Value;

/// What stands in place of a personal value.
pub(crate) const MASK: &str = "•••";

/// A body with the values of personal fields masked, at any depth; one that is no JSON is masked as a whole.
pub(crate) fn masked(value: Value, personal: &[String]) -> Value {
    match value {
        _ if personal.is_empty() => value,
        Value::Null => MASK.into(),
        value => within(value, personal),
    }
}

fn within(value: Value, personal: &[String]) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .map(|(name, value)| {
                    let value = if personal.contains(&name) { MASK.into() } else { within(value, personal) };
                    (name, value)
                })
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(|item| within(item, personal)).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn personal_fields_are_masked_wherever_they_are_and_whatever_they_hold() {
        let body = json!({ "email": "a@b", "lines": [{ "name": { "first": "Ada" }, "count": 1 }], "none": null });
        let shown = masked(body.clone(), &["email".into(), "name".into()]);
        assert_eq!(shown, json!({ "email": MASK, "lines": [{ "name": MASK, "count": 1 }], "none": null }));
        assert_eq!(masked(body.clone(), &[]), body);
        assert_eq!(masked(Value::Null, &["email".into()]), json!(MASK));
    }
}
