//! [`Query`]: what a route asks of documents of one type.

use std::fmt;
use std::marker::PhantomData;

use sha2::{Digest, Sha256};

use crate::handler::Document;
use crate::store::Selection;
#[cfg(any(feature = "sqlite", feature = "mongodb"))]
use crate::store::StoreError;

/// Which documents of a type are wanted, sorted by id.
///
/// ```
/// # use millstream::{Document, store::Query};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Clone, Serialize, Deserialize)]
/// # struct Product { id: String, maker: String }
/// # impl Document for Product {
/// #     const COLLECTION: &'static str = "products";
/// #     const INDEXED: &'static [&'static str] = &["maker"];
/// #     fn id(&self) -> &str { &self.id }
/// # }
/// let newest = Query::<Product>::all().equal("maker", "Pavlova").newest_first().limit(20);
/// ```
pub struct Query<D> {
    pub(crate) selection: Selection,
    document: PhantomData<fn() -> D>,
}

impl<D: Document> Query<D> {
    /// All documents of the collection, at most 100 of them.
    pub fn all() -> Self {
        let selection =
            Selection { collection: D::COLLECTION, filters: vec![], after: None, descending: false, limit: 100 };
        Self { selection, document: PhantomData }
    }

    /// Only those whose JSON field has this text, as in `maker` or `maker.city`; a field of [`Document::INDEXED`] is found by its
    /// index.
    #[must_use]
    pub fn equal(mut self, field: &'static str, text: impl Into<String>) -> Self {
        self.selection.filters.push((field, text.into()));
        self
    }

    /// Only those whose ids come after this one, in the order asked for; the `next` of a page stands for its last id.
    #[must_use]
    pub fn after(mut self, id: impl Into<String>) -> Self {
        let id = id.into();
        self.selection.after = Some(marked::<D>(&id).map_or_else(|| id.clone(), Into::into));
        self
    }

    /// The highest id first: the newest, where ids begin with their time as an [`Id`](crate::Id) does.
    #[must_use]
    pub fn newest_first(mut self) -> Self {
        self.selection.descending = true;
        self
    }

    /// At most so many.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.selection.limit = limit;
        self
    }
}

/// Refuses a field that documents cannot be queried by, because in some store it would be syntax.
#[cfg(any(feature = "sqlite", feature = "mongodb"))]
pub(crate) fn check_field(field: &str) -> Result<(), StoreError> {
    let legal = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if field.split('.').all(legal) {
        return Ok(());
    }
    let names = "a field to query by is made of A-Z, a-z, 0-9 and _, with dots between the names of nested ones";
    Err(StoreError::new(format!("{names}, not `{field}`")))
}

/// Stands between the id in a cursor and its mark.
const MARK: char = '~';

/// An id as a cursor: with a mark by which one that was given out for another list, or made up, is known.
pub(crate) fn mark<D: Document>(id: &str) -> String {
    let sum = Sha256::digest([D::COLLECTION, "\0", id].concat());
    let sum: String = sum.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    format!("{id}{MARK}{sum}")
}

/// The id in a cursor of this list.
pub(crate) fn marked<D: Document>(cursor: &str) -> Option<&str> {
    let (id, _) = cursor.rsplit_once(MARK)?;
    (mark::<D>(id) == cursor).then_some(id)
}

impl<D> Clone for Query<D> {
    fn clone(&self) -> Self {
        Self { selection: self.selection.clone(), document: PhantomData }
    }
}

impl<D> fmt::Debug for Query<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Query").field(&self.selection).finish()
    }
}
