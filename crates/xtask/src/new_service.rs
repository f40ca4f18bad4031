//! A package for a service of one's own, small and whole: it builds, and its test passes.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail, ensure};

use crate::root;

/// Each file and what is in it; the words in capitals are replaced.
const FILES: [(&str, &str); 4] = [
    ("Cargo.toml", include_str!("new_service/Cargo.toml.txt")),
    ("src/lib.rs", include_str!("new_service/lib.rs.txt")),
    ("src/main.rs", include_str!("new_service/main.rs.txt")),
    ("tests/greetings.rs", include_str!("new_service/test.rs.txt")),
];

/// Reads `NAME [--path DIR]`; the folder is `DIR/NAME`, by default beside this workspace's caller.
pub(crate) fn parse(args: &[OsString]) -> Result<(String, PathBuf)> {
    const USAGE: &str = "usage: cargo xtask new-service NAME [--path DIR]";
    let text =
        |arg: &OsString| arg.to_str().map(str::to_owned).with_context(|| format!("{} is not UTF-8", arg.display()));
    let (name, parent) = match args {
        [name] => (text(name)?, PathBuf::from(".")),
        [name, flag, folder] | [flag, folder, name] if flag == "--path" => (text(name)?, folder.into()),
        _ => bail!(USAGE),
    };
    check(&name)?;
    let folder = parent.join(&name);
    Ok((name, folder))
}

/// The name is that of a service, a package and, with `_`, a crate.
fn check(name: &str) -> Result<()> {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    ensure!(
        name.starts_with(|first: char| first.is_ascii_lowercase()) && name.bytes().all(legal) && !name.ends_with('-'),
        "a service's name is made of a-z, 0-9 and -, and begins with a letter, not `{name}`"
    );
    let taken = ["test", "core", "std", "alloc", "axum", "millstream", "serde", "tokio"];
    let keywords = [
        "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn",
        "else", "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro",
        "match", "mod", "move", "mut", "override", "priv", "pub", "ref", "return", "self", "static", "struct", "super",
        "trait", "true", "try", "type", "typeof", "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
    ];
    ensure!(
        !taken.contains(&name) && !keywords.contains(&name),
        "a package cannot be called `{name}`: choose another name"
    );
    Ok(())
}

pub(crate) fn run(name: &str, folder: &Path) -> Result<ExitCode> {
    let workspace = root();
    ensure!(!folder.exists(), "{} exists already: choose another name or --path", folder.display());
    for (file, text) in texts(name, &workspace) {
        let path = folder.join(file);
        let parent = path.parent().context("a file has a folder")?;
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let at = folder.display();
    println!(
        "{at} is a service with an event, a handler, a command and a query.\n\n  cd {at}\n  cargo test\n  cargo run       \
         # with a broker at nats://127.0.0.1:4222 or NATS_URL; `cargo run -- --help` has all that it can be told"
    );
    Ok(ExitCode::SUCCESS)
}

fn texts(name: &str, workspace: &Path) -> impl Iterator<Item = (&'static str, String)> {
    let snake = name.replace('-', "_");
    let words = [
        ("STREAM_NAME", snake.to_uppercase()),
        ("CRATE_NAME", snake),
        ("SERVICE_NAME", name.to_owned()),
        ("MILLSTREAM_PATH", workspace.join("crates/millstream").display().to_string()),
        ("RUST_VERSION", env!("CARGO_PKG_RUST_VERSION").to_owned()),
    ];
    let fill = move |text: &str| words.iter().fold(text.to_owned(), |text, (word, value)| text.replace(word, value));
    FILES.into_iter().map(move |(file, text)| (file, fill(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os(args: &[&str]) -> Vec<OsString> {
        args.iter().map(OsString::from).collect()
    }

    #[test]
    fn an_illegal_name_is_refused_with_what_would_be_right() {
        for name in ["", "Hello", "1st", "a_b", "../up", "-a", "a-"] {
            let error = parse(&os(&[name])).unwrap_err().to_string();
            assert!(error.contains("a-z, 0-9 and -"), "{name}: {error}");
        }
        for name in ["test", "fn", "tokio"] {
            assert!(parse(&os(&[name])).unwrap_err().to_string().contains("choose another name"), "{name}");
        }
        assert!(parse(&os(&["a", "b"])).unwrap_err().to_string().contains("usage"));
    }

    #[test]
    fn the_flag_may_come_before_or_after_the_name() {
        let wanted = ("hello".to_owned(), PathBuf::from("somewhere/hello"));
        assert_eq!(parse(&os(&["hello", "--path", "somewhere"])).unwrap(), wanted);
        assert_eq!(parse(&os(&["--path", "somewhere", "hello"])).unwrap(), wanted);
    }

    #[test]
    fn a_folder_that_exists_is_left_alone() {
        let error = run("src", &PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")).unwrap_err().to_string();
        assert!(error.contains("exists already"), "{error}");
    }

    #[test]
    fn every_placeholder_is_replaced_and_versions_are_those_of_the_workspace() {
        let all: Vec<_> = texts("two-words", Path::new("/toolkit")).collect();
        for (file, text) in &all {
            for word in ["STREAM_NAME", "CRATE_NAME", "SERVICE_NAME", "MILLSTREAM_PATH", "RUST_VERSION"] {
                assert!(!text.contains(word), "{word} is left in {file}");
            }
        }
        let manifest = &all[0].1;
        assert!(manifest.contains(r#"name = "two-words""#) && manifest.contains("/toolkit/crates/millstream"));
        assert!(all[3].1.contains("two_words::"));
        let workspace = fs::read_to_string(root().join("Cargo.toml")).unwrap();
        for name in ["axum", "serde", "tokio"] {
            let version = |text: &str| {
                let line = text.lines().find(|line| line.starts_with(&format!("{name} = "))).unwrap().to_owned();
                line.split('"').nth(1).unwrap().split('.').take(2).collect::<Vec<_>>().join(".")
            };
            assert!(version(&workspace).starts_with(&version(manifest)), "{name} differs from the workspace's");
        }
    }
}
