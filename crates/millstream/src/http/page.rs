//! Lists: pages by `limit` and `cursor`, filtered by equality.

use axum::extract::{FromRequestParts, Query as Parameters};
use axum::http::request::Parts;
use serde::Serialize;

use super::Problem;
use crate::commands::Context;
use crate::handler::{Document, FieldError};
use crate::store::{Query, StoreError, query};

/// How many documents a page has at most.
pub const MAX_PAGE: usize = 1000;
const DEFAULT_PAGE: usize = 100;

/// The query string of a list, an extractor: `limit`, `cursor`, and the filters that the route knows.
#[derive(Clone, Debug)]
pub struct List(Vec<(String, String)>);

/// A filter that a route knows: the parameter, which is an indexed field too, and what is wrong with a value.
pub type Filter = (&'static str, fn(&str) -> Result<(), String>);

/// A page of documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Page<D> {
    /// The documents, in order of their ids.
    pub items: Vec<D>,
    /// The `cursor` of the next page; `None` on the last.
    pub next: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for List {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let parameters = Parameters::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        parameters.map(|Parameters(list)| Self(list)).map_err(|error| Problem::bad_request(error.body_text()))
    }
}

impl List {
    /// The page asked for, by id; [`Query::newest_first`] turns the order round.
    ///
    /// # Errors
    /// A 400 that names every parameter that is wrong, unknown or given twice.
    pub fn query<D: Document>(self, filters: &[Filter]) -> Result<Query<D>, Problem> {
        let mut query = Query::all().limit(DEFAULT_PAGE);
        let mut errors = vec![];
        let mut seen: Vec<String> = vec![];
        for (name, value) in self.0 {
            let wrong = match name.as_str() {
                _ if seen.contains(&name) => Err("is given twice".into()),
                "limit" => match value.parse() {
                    Ok(limit) if (1..=MAX_PAGE).contains(&limit) => {
                        query.selection.limit = limit;
                        Ok(())
                    }
                    _ => Err(format!("must be a whole number from 1 to {MAX_PAGE}")),
                },
                "cursor" => match query::marked::<D>(&value) {
                    Some(id) => {
                        query.selection.after = Some(id.into());
                        Ok(())
                    }
                    None => Err("must be a `nextCursor` of this list, as an earlier page gave it".into()),
                },
                _ => match filters.iter().find(|(known, _)| *known == name) {
                    Some((field, check)) => check(&value).map(|()| query.selection.filters.push((field, value))),
                    None => {
                        let known = filters.iter().map(|(known, _)| *known).chain(["limit", "cursor"]);
                        Err(format!("is not known; there are {}", known.collect::<Vec<_>>().join(", ")))
                    }
                },
            };
            errors.extend(wrong.err().map(|message| FieldError { field: name.clone(), message }));
            seen.push(name);
        }
        if errors.is_empty() {
            return Ok(query);
        }
        Err(Problem::bad_request("the query is invalid: see `errors`").with_errors(errors))
    }
}

impl Context {
    /// Finds a page of documents.
    ///
    /// # Errors
    /// When the store is unavailable, or a document does not parse.
    pub async fn page<D: Document>(&self, mut query: Query<D>) -> Result<Page<D>, StoreError> {
        let limit = query.selection.limit;
        // One more than asked for tells whether there is a next page.
        query.selection.limit += 1;
        let mut items = self.find(query).await?;
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(|last| query::mark::<D>(last.id()));
        Ok(Page { items, next })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;
    use crate::store::Selection;

    #[derive(Clone, Serialize, Deserialize)]
    struct Thing {}

    impl Document for Thing {
        const COLLECTION: &'static str = "things";
        fn id(&self) -> &str {
            ""
        }
    }

    const COLOUR: Filter = ("colour", |value| if value == "red" { Ok(()) } else { Err("must be red".into()) });

    fn read(parameters: &[(&str, &str)]) -> Result<Selection, Problem> {
        let list = parameters.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        List(list).query::<Thing>(&[COLOUR]).map(|query| query.newest_first().selection)
    }

    #[test]
    fn a_list_is_filtered_limited_and_continued() {
        let query =
            read(&[("colour", "red"), ("limit", "1000"), ("cursor", &query::mark::<Thing>("01932f6e-7a00"))]).unwrap();
        assert_eq!(query.filters, [("colour", "red".to_owned())]);
        assert_eq!((query.limit, query.after.as_deref(), query.descending), (1000, Some("01932f6e-7a00"), true));
    }

    #[test]
    fn every_wrong_parameter_is_named_with_what_would_be_right() {
        let wrong = [("colour", "blue"), ("limit", "0"), ("cursor", "01932f6e-7a00"), ("sort", "x")];
        let errors = read(&wrong).unwrap_err().errors;
        let said: Vec<_> = errors.iter().map(|error| error.field.as_str()).collect();
        assert_eq!(said, wrong.map(|(name, _)| name));
        assert!(errors[3].message.contains("colour, limit, cursor"));
        for limit in ["-1", "1001", "ten", "1.5", ""] {
            assert!(read(&[("limit", limit)]).unwrap_err().errors[0].message.contains("1 to 1000"), "{limit}");
        }
        let of_this = query::mark::<Thing>("01932f6e-7a00");
        for forged in ["", "~", "x~00000000", &of_this.replace("7a00", "7a01"), &of_this[1..]] {
            assert_eq!(read(&[("cursor", forged)]).unwrap_err().errors[0].field, "cursor", "{forged}");
        }
        assert_eq!(read(&[("limit", "1"), ("limit", "2")]).unwrap_err().errors[0].message, "is given twice");
    }
    proptest! {
        #[test]
        fn a_cursor_is_what_this_list_has_given_out_or_it_is_refused(
            id in any::<String>(),
            at in any::<proptest::sample::Index>(),
            with in any::<char>(),
        ) {
            let cursor = query::mark::<Thing>(&id);
            let read_as = |cursor: &str| read(&[("cursor", cursor)]).map(|query| query.after);
            prop_assert_eq!(read_as(&cursor).unwrap(), Some(id.clone()));
            // With one character replaced it is another one, or refused.
            let mut other: Vec<char> = cursor.chars().collect();
            let at = at.index(other.len());
            other[at] = with;
            let other: String = other.into_iter().collect();
            match read_as(&other) {
                Ok(after) => prop_assert!(other == cursor && after == Some(id)),
                Err(problem) => prop_assert_eq!(&problem.errors[0].field, "cursor"),
            }
        }
    }
}
