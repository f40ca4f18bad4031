//! The application's runbook: a Markdown page, served with an anchor at each heading, so that alerts can link to their sections.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Html;
use axum::routing::get;
use millstream::http::Problem;
use pulldown_cmark::html::push_html;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

use crate::Console;

pub(crate) fn routes() -> Router<Arc<Console>> {
    Router::new().route("/runbook", get(runbook))
}

async fn runbook(State(console): State<Arc<Console>>) -> Result<Html<String>, Problem> {
    let none = || Problem::not_found("this console has no runbook: start it with --runbook FILE (RUNBOOK)");
    console.runbook.as_deref().map(|markdown| Html(page(markdown))).ok_or_else(none)
}

fn page(markdown: &str) -> String {
    let mut body = String::new();
    push_html(&mut body, with_anchors(markdown).into_iter());
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Runbook · Millstream</title>\n\
         <link rel=\"icon\" href=\"/assets/icon.svg\" type=\"image/svg+xml\">\n\
         <link rel=\"stylesheet\" href=\"/assets/console.css\">\n</head>\n<body class=\"runbook\">\n\
         <header class=\"bar\"><a class=\"brand\" href=\"/\"><img src=\"/assets/icon.svg\" alt=\"\" width=\"22\" height=\"22\">\
         <span>Millstream</span></a></header>\n<main>\n{body}</main>\n</body>\n</html>\n"
    )
}

/// Markdown without markup of its own, and with an id at each heading: its words in small letters, with hyphens between them, as
/// GitHub makes them.
fn with_anchors(markdown: &str) -> Vec<Event<'_>> {
    let mut events: Vec<Event<'_>> = Parser::new_ext(markdown, Options::ENABLE_TABLES)
        .map(|event| match event {
            Event::Html(text) | Event::InlineHtml(text) => Event::Text(text),
            event => event,
        })
        .collect();
    let mut begun = None;
    for at in 0..events.len() {
        match &events[at] {
            Event::Start(Tag::Heading { .. }) => begun = Some(at),
            Event::End(TagEnd::Heading(_)) => {
                let Some(start) = begun.take() else { continue };
                let words: String = events[start..at].iter().map(words).collect();
                if let Event::Start(Tag::Heading { id, .. }) = &mut events[start] {
                    *id = Some(anchor(&words).into());
                }
            }
            _ => {}
        }
    }
    events
}

fn words<'a>(event: &'a Event<'_>) -> &'a str {
    match event {
        Event::Text(text) | Event::Code(text) => text,
        _ => "",
    }
}

fn anchor(words: &str) -> String {
    let kept = words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_heading_has_an_anchor_and_no_markup_comes_through() {
        let html = page(
            "# What to do\n\n## `StoreDown`, now\n\n<script>alert(1)</script> and <b>this</b>\n\n| a | b |\n| - | - |\n| 1 | 2 |\n",
        );
        for part in
            ["<h1 id=\"what-to-do\">", "<h2 id=\"storedown-now\">", "&lt;script&gt;", "&lt;b&gt;this", "<td>1</td>"]
        {
            assert!(html.contains(part), "`{part}` is missing in {html}");
        }
        assert!(!html.contains("<script") && !html.contains("<b>"), "{html}");
    }
}
