//! A command that is done, as an answer.

use axum::http::header::{CONTENT_TYPE, LOCATION};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

use crate::commands::Accepted;

impl<R> Accepted<R> {
    /// 201 (Created), with where the new thing is: `accepted.created(format!("/orders/{}", accepted.id))`.
    pub fn created(&self, location: String) -> Response {
        (StatusCode::CREATED, [(LOCATION, location)], self.clone()).into_response()
    }
}

impl<R> IntoResponse for Accepted<R> {
    fn into_response(self) -> Response {
        let mut response = self.json.into_response();
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.repeated {
            response.headers_mut().insert("idempotency-replayed", HeaderValue::from_static("true"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use crate::ids::{Id, Timestamp};
    use millstream_core::planner::Reply;

    use super::*;

    #[test]
    fn a_reply_goes_out_as_it_was_committed_and_says_whether_it_repeats() {
        let accepted = |repeated| {
            let id = Id::random(Timestamp::system());
            Accepted::<u32>::new(Reply { id, reply: "5".into(), repeated })
        };
        assert_eq!(accepted(false).reply().unwrap(), 5);
        let header = |response: &Response, name: &str| {
            response.headers().get(name).map(|value| value.to_str().unwrap().to_owned())
        };
        let first = accepted(false).into_response();
        assert_eq!((first.status(), header(&first, "idempotency-replayed")), (StatusCode::OK, None));
        assert_eq!(header(&first, "content-type").as_deref(), Some("application/json"));
        let again = accepted(true).created("/numbers/5".into());
        assert_eq!((again.status(), header(&again, "location").as_deref()), (StatusCode::CREATED, Some("/numbers/5")));
        assert_eq!(header(&again, "idempotency-replayed").as_deref(), Some("true"));
    }
}
