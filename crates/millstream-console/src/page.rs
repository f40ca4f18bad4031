//! The page: a few files compiled into the program, which load nothing from other hosts.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, LazyLock};

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;

use crate::Console;

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JS: &str = "text/javascript; charset=utf-8";

/// Path, type and text of each file.
const FILES: &[(&str, &str, &str)] = &[
    ("/", HTML, include_str!("page/index.html")),
    ("/assets/console.css", CSS, include_str!("page/console.css")),
    ("/assets/icon.svg", "image/svg+xml", include_str!("page/icon.svg")),
    ("/assets/main.js", JS, include_str!("page/main.js")),
    ("/assets/dom.js", JS, include_str!("page/dom.js")),
    ("/assets/ask.js", JS, include_str!("page/ask.js")),
    ("/assets/live.js", JS, include_str!("page/live.js")),
    ("/assets/score.js", JS, include_str!("page/score.js")),
    ("/assets/trace.js", JS, include_str!("page/trace.js")),
    ("/assets/dead.js", JS, include_str!("page/dead.js")),
    ("/assets/wakes.js", JS, include_str!("page/wakes.js")),
    ("/assets/messages.js", JS, include_str!("page/messages.js")),
    ("/assets/audit.js", JS, include_str!("page/audit.js")),
    ("/assets/system.js", JS, include_str!("page/system.js")),
];

/// Makes a page that is older than its console reload itself.
pub(crate) fn version() -> &'static str {
    static VERSION: LazyLock<String> = LazyLock::new(|| {
        let mut hash = DefaultHasher::new();
        FILES.hash(&mut hash);
        format!("{:016x}", hash.finish())
    });
    &VERSION
}

pub(crate) fn routes() -> Router<Arc<Console>> {
    FILES.iter().fold(Router::new(), |routes, (path, kind, text)| {
        routes.route(path, get(async || ([(CONTENT_TYPE, *kind)], *text)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_small_names_nothing_elsewhere_and_never_makes_markup_of_a_text() {
        let bytes: usize = FILES.iter().map(|(.., text)| text.len()).sum();
        assert!(bytes < 110 * 1024, "the page has {bytes} bytes");
        for (path, _, text) in FILES {
            for bad in
                ["http://", "https://", "innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("]
            {
                // A namespace is not an address to load from.
                let found = text.replace("http://www.w3.org/2000/svg", "").contains(bad);
                assert!(!found, "{path} has `{bad}`");
            }
        }
    }
}
