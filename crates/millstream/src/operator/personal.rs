//! Personal fields: an event names them, and whoever shows its body masks them.

use serde_json::Value;

/// What stands in place of a personal value.
pub const MASK: &str = "•••";

/// Puts [`MASK`] in place of the values of fields with these names, at any depth; whether there were any.
pub fn mask(value: &mut Value, names: &[String]) -> bool {
    match value {
        Value::Object(fields) => fields.iter_mut().fold(false, |any, (name, value)| {
            if names.contains(name) {
                *value = MASK.into();
                return true;
            }
            mask(value, names) || any
        }),
        Value::Array(items) => items.iter_mut().filter_map(|item| mask(item, names).then_some(())).count() > 0,
        _ => false,
    }
}

/// Whether a JSON pointer leads to a value of a field with one of these names, or into one; or to a whole body that has some.
pub fn is_personal(pointer: &str, names: &[String]) -> bool {
    pointer.split('/').any(|token| names.iter().any(|name| name == token)) || (pointer.is_empty() && !names.is_empty())
}

/// The names in the header [`PERSONAL`](crate::event::header::PERSONAL).
pub(crate) fn names(header: Option<String>) -> Vec<String> {
    let names = header.unwrap_or_default();
    names.split(',').map(str::trim).filter(|name| !name.is_empty()).map(Into::into).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn personal_fields_are_masked_at_any_depth_whatever_they_hold_and_nothing_else_is() {
        let mut body = json!({
            "orderId": "o1", "userId": "ada", "none": null,
            "lines": [{ "name": { "first": "Ada" }, "product": { "userId": 7 } }, { "name": "Zoë" }],
        });
        assert!(mask(&mut body, &["userId".into(), "name".into()]));
        let masked = json!({
            "orderId": "o1", "userId": MASK, "none": null,
            "lines": [{ "name": MASK, "product": { "userId": MASK } }, { "name": MASK }],
        });
        assert_eq!(body, masked);
        assert!(!mask(&mut body, &["other".into()]) && !mask(&mut body, &[]));
        assert_eq!(body, masked);
    }

    #[test]
    fn what_lies_at_or_below_a_personal_field_is_personal_and_so_is_a_whole_body_with_one() {
        let names = ["name".to_owned()];
        for (pointer, is) in
            [("/name", true), ("/lines/0/name/first", true), ("", true), ("/names", false), ("/a", false)]
        {
            assert_eq!(is_personal(pointer, &names), is, "{pointer}");
        }
        assert!(!is_personal("", &[]));
    }
}
