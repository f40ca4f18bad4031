//! Personal fields: an event names them, and whoever shows its body masks them.

/// What stands in place of a personal value.
pub const MASK: &str = "•••";

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
    use super::*;

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
