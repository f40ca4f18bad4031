//! A dead letter as a test of its service: the events of its trace that the service was given, in the simulator.

use std::fmt::Write;

use bytes::Bytes;

use crate::operator::dead::DeadLetter;
use crate::operator::exact::Exact;
use crate::operator::trace::Trace;

/// Headers that say nothing of the event itself.
const LEFT_OUT: [&str; 4] = ["nats-", "millstream-", "traceparent", "tracestate"];

/// The source of a test that fails as long as the service gives the dead letter up, and passes once it handles it. It calls
/// `service()`, which is to give the service. Letters and digits in texts of personal fields are replaced.
pub fn as_test(trace: &Trace, letter: &DeadLetter) -> String {
    let DeadLetter { service, id, .. } = letter;
    let before = trace.events.iter().take_while(|traced| traced.event.id != Some(*id));
    let given = before.filter(|traced| traced.handled.iter().any(|handled| handled.service == *service));
    let mut events: Vec<_> = given
        .map(|traced| {
            let mut body = traced.event.payload.clone();
            body.disguise(&traced.event.personal);
            (traced.event.subject.as_str(), &traced.event.headers, Bytes::from(body.to_string()))
        })
        .collect();
    events.push((letter.subject.as_str(), &letter.headers, body_of(letter)));

    let name: String = service.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    let under = id.to_string().replace('-', "_");
    let mut text = format!("/// `{service}` parked {} {id}: {}.\n", letter.event, one_line(&letter.reason));
    for line in letter.error.lines().map(one_line) {
        _ = writeln!(text, "/// {line}");
    }
    if !letter.personal.is_empty() {
        _ = writeln!(text, "/// Personal fields have been replaced: {}.", one_line(&letter.personal.join(", ")));
    }
    _ = write!(
        text,
        "#[test]\nfn what_{name}_parked_as_{under}_is_handled() {{\n    let mut sim = millstream::sim::Sim::new(0).with(&service(), 1);\n"
    );
    for (subject, headers, body) in events {
        text += "    let headers = [\n";
        let told = headers.iter().filter(|(name, _)| {
            let name = name.to_ascii_lowercase();
            !LEFT_OUT.iter().any(|left_out| name.starts_with(left_out))
        });
        for (name, value) in told {
            _ = writeln!(text, "        ({name:?}, {:?}),", crate::event::encode_header(value));
        }
        text += "    ];\n    let headers = headers.map(|(name, value): (&str, &str)| (name.to_owned(), value.to_owned()));\n";
        _ = writeln!(text, "    sim.publish_raw({subject:?}, headers.to_vec(), {});", literal(&body));
    }
    text += "    sim.settle().unwrap();\n";
    _ = writeln!(text, "    assert_eq!(sim.dead_letters({service:?}), []);\n}}");
    text
}

fn body_of(letter: &DeadLetter) -> Bytes {
    match Exact::read(&letter.payload) {
        Ok(mut body) => {
            body.disguise(&letter.personal);
            body.to_string().into()
        }
        Err(_) => letter.payload.clone(),
    }
}

fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// A body as a literal: JSON and other plain text as it is, anything else as bytes.
fn literal(body: &[u8]) -> String {
    match std::str::from_utf8(body) {
        Ok(text) if !text.contains(['\r', '\0']) => {
            let most =
                text.split('"').skip(1).map(|after| after.bytes().take_while(|byte| *byte == b'#').count()).max();
            let hashes = "#".repeat(most.map_or(1, |most| most + 1));
            format!("r{hashes}\"{text}\"{hashes}")
        }
        _ => format!("b\"{}\".as_slice()", body.escape_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_a_literal_of_the_same_bytes() {
        assert_eq!(literal(br#"{"a":1}"#), r##"r#"{"a":1}"#"##);
        assert_eq!(literal(br##"a "# b"##), r###"r##"a "# b"##"###);
        assert_eq!(literal(b"\xff\n\0\""), r#"b"\xff\n\x00\"".as_slice()"#);
    }

    #[test]
    fn texts_of_personal_fields_keep_their_shape_and_nothing_else() {
        let mut body = Exact::read(
            r#"{"name":"Ada Müller","mail":"a.b-9@x.org","age":41,"note":"Ada","of":{"name":["Bob",true]}}"#.as_bytes(),
        )
        .unwrap();
        body.disguise(&["name".into(), "mail".into(), "age".into()]);
        let text = r#"{"name":"Xxx Xxxxxx","mail":"x.x-0@x.xxx","age":0,"note":"Ada","of":{"name":["Xxx",true]}}"#;
        assert_eq!(body.to_string(), text);
    }
}
