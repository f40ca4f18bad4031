//! The JSON of what MongoDB keeps as BSON.
//!
//! Others than this store may have written to it. What JSON has no form for becomes extended JSON, as in `{"$oid": …}`: whoever
//! expects a text there cannot read the one document, and all others can be loaded with it.

use millstream_core::number::{Decimal, Number};
use mongodb::bson::RawBsonRef;
use serde::Serialize;

/// A value as JSON, or why it is damaged.
pub(super) fn json(value: RawBsonRef<'_>) -> Result<Vec<u8>, String> {
    let mut out = vec![];
    write(&mut out, value)?;
    Ok(out)
}

fn write(out: &mut Vec<u8>, value: RawBsonRef<'_>) -> Result<(), String> {
    match value {
        RawBsonRef::Document(members) => {
            out.push(b'{');
            for (nth, member) in members.iter().enumerate() {
                let (name, value) = member.map_err(|error| error.to_string())?;
                separate(out, nth);
                scalar(out, name.as_str())?;
                out.push(b':');
                write(out, value)?;
            }
            out.push(b'}');
        }
        RawBsonRef::Array(values) => {
            out.push(b'[');
            for (nth, value) in values.into_iter().enumerate() {
                separate(out, nth);
                write(out, value.map_err(|error| error.to_string())?)?;
            }
            out.push(b']');
        }
        RawBsonRef::String(value) => scalar(out, value)?,
        RawBsonRef::Boolean(value) => scalar(out, value)?,
        RawBsonRef::Null => scalar(out, ())?,
        RawBsonRef::Int64(value) => scalar(out, value)?,
        RawBsonRef::Decimal128(value) => match Decimal::of_bits(u128::from_le_bytes(value.bytes())) {
            Some(decimal) => out.extend(Number::Decimal(decimal).to_string().as_bytes()),
            None => scalar(out, RawBsonRef::Decimal128(value))?,
        },
        RawBsonRef::Int32(value) => scalar(out, value)?,
        RawBsonRef::Double(value) => scalar(out, value)?,
        value => scalar(out, value)?,
    }
    Ok(())
}

fn separate(out: &mut Vec<u8>, nth: usize) {
    if nth > 0 {
        out.push(b',');
    }
}

fn scalar(out: &mut Vec<u8>, value: impl Serialize) -> Result<(), String> {
    serde_json::to_writer(out, &value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use millstream_core::bson::{DOC, encode};
    use mongodb::bson::{DateTime, RawDocument, rawdoc};
    use proptest::prelude::*;
    use serde_json::Value;
    use serde_json::value::RawValue;

    use super::*;

    /// The value as it comes back.
    fn again(value: &str) -> String {
        let bson = encode(value.as_bytes()).unwrap();
        let value = RawDocument::from_bytes(&bson).unwrap().get(DOC).unwrap().unwrap();
        String::from_utf8(json(value).unwrap()).unwrap()
    }

    /// Numbers as a program may write them, and as only a person would.
    fn number() -> impl Strategy<Value = String> {
        let float = any::<f64>().prop_filter("JSON has no other", |float| float.is_finite());
        prop_oneof![
            any::<i64>().prop_map(|integer| integer.to_string()),
            any::<u64>().prop_map(|integer| integer.to_string()),
            float.prop_map(|float| serde_json::to_string(&float).unwrap()),
            (any::<i32>(), 0..100_u8).prop_map(|(whole, cents)| format!("{whole}.{cents:02}")),
        ]
    }

    fn value() -> impl Strategy<Value = String> {
        let text = || any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap());
        let name = "[^\0]{0,3}|\\$[a-z.]{1,4}|[a-c.]{0,4}".prop_filter("no name has NUL", |name| !name.contains('\0'));
        let leaf = prop_oneof![3 => number(), 2 => text(), 1 => Just("true".to_owned()), 1 => Just("null".to_owned())];
        leaf.prop_recursive(5, 60, 6, move |inner| {
            let members = proptest::collection::btree_map(name.clone(), inner.clone(), 0..6);
            prop_oneof![
                proptest::collection::vec(inner, 0..6).prop_map(|values| format!("[{}]", values.join(","))),
                members.prop_map(|members| {
                    let member = |(name, value)| format!("{}:{value}", serde_json::to_string(&name).unwrap());
                    format!("{{{}}}", members.into_iter().map(member).collect::<Vec<_>>().join(","))
                }),
            ]
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_value_comes_back_as_it_was_digit_by_digit(value in value()) {
            prop_assert_eq!(again(&value), value);
        }
    }

    #[test]
    fn spaces_and_escapes_that_mean_nothing_do_not_come_back() {
        assert_eq!(again(" { \"\\u0061\" : [ 1 , 2.50 ] } "), r#"{"a":[1,2.50]}"#);
        let raw: Box<RawValue> = serde_json::from_str("[1E2,-0]").unwrap();
        assert_eq!(again(raw.get()), "[1e+2,-0]");
    }

    #[test]
    fn what_others_have_written_is_read_as_well() {
        let by_hand = rawdoc! { "n": 5_i32, "x": 2.5, "at": DateTime::from_millis(0), "not": f64::NAN };
        let json = json(RawBsonRef::Document(&by_hand)).unwrap();
        let json: Value = serde_json::from_slice(&json).unwrap();
        assert_eq!((&json["n"], &json["x"]), (&5.into(), &2.5.into()));
        assert!(json["at"]["$date"].is_object() && json["not"].is_null(), "{json}");
    }
}
