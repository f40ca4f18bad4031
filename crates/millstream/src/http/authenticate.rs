//! Callers with keys: RFC 6750's `Authorization: Bearer`.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};

use super::extract::single;
use super::problem::Problem;
use crate::api_keys::ApiKeys;

/// The name of the caller whose key a request has.
#[derive(Clone)]
pub(super) struct Authenticated(pub(super) String);

/// The key that a request is made with, if it has one.
pub fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = single(headers, AUTHORIZATION.as_str()).ok().flatten()?;
    let (scheme, key) = std::str::from_utf8(value).ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

/// Lets only these callers through to routes; anybody else is answered with 401.
pub(crate) fn only_for<S: Clone + Send + Sync + 'static>(keys: ApiKeys, routes: Router<S>) -> Router<S> {
    routes.layer(from_fn_with_state(keys, authenticate))
}

async fn authenticate(State(keys): State<ApiKeys>, mut request: Request, next: Next) -> Response {
    let refuse = |why| Problem::new(StatusCode::UNAUTHORIZED, why).into_response();
    let Some(key) = bearer(request.headers()) else {
        return refuse("callers need a key here: send it in one header, `Authorization: Bearer KEY`");
    };
    let Some(name) = keys.caller(key).map(str::to_owned) else {
        return refuse("the key in the header Authorization is not known");
    };
    request.extensions_mut().insert(Authenticated(name));
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::routing::get;
    use tower::ServiceExt;

    use super::*;
    use crate::commands::Caller;

    /// Of `one`, by `sha256sum`.
    const KEYS: &str = "web:7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed";

    #[tokio::test]
    async fn a_request_without_a_known_key_is_refused_and_the_name_of_any_other_is_known() {
        let routes = Router::new().route("/", get(async |caller: Caller| caller.name.unwrap_or_default()));
        let app = only_for(ApiKeys::read(KEYS).unwrap(), routes);
        for (headers, status, said) in [
            (vec![], 401, "`Authorization: Bearer KEY`"),
            (vec!["Basic one"], 401, "`Authorization: Bearer KEY`"),
            (vec!["one"], 401, "`Authorization: Bearer KEY`"),
            (vec!["Bearer one", "Bearer one"], 401, "in one header"),
            (vec!["Bearer"], 401, "`Authorization: Bearer KEY`"),
            (vec!["Bearer two"], 401, "not known"),
            (vec!["Bearer "], 401, "not known"),
            (vec!["Bearer one"], 200, "web"),
            (vec!["bearer  one "], 200, "web"),
        ] {
            let mut request = Request::builder().uri("/");
            for header in &headers {
                request = request.header(AUTHORIZATION, *header);
            }
            let answer = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
            let challenged = answer.headers().contains_key("www-authenticate");
            assert_eq!((answer.status().as_u16(), challenged), (status, status == 401), "{headers:?}");
            let body = axum::body::to_bytes(answer.into_body(), 4096).await.unwrap();
            let body = String::from_utf8(body.to_vec()).unwrap();
            assert!(body.contains(said), "{headers:?}: {body}");
        }
    }
}
