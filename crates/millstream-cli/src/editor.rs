//! A body in the operator's own editor.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use millstream::Id;

/// Deletes the file when it is no longer needed: what is in it may be personal.
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        // It may have been moved away.
        let _ = fs::remove_file(&self.0);
    }
}

/// The body as the operator leaves it.
pub(crate) fn edit(id: Id, body: &[u8]) -> Result<Vec<u8>> {
    let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let Some(editor) = set("VISUAL").or_else(|| set("EDITOR")) else {
        bail!("say what is to change with --set or --payload, or set EDITOR");
    };
    let draft = Draft(env::temp_dir().join(format!("millstream-{id}-{}.json", std::process::id())));
    let path: &Path = &draft.0;
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(body));
    written.with_context(|| format!("{} cannot be written", path.display()))?;
    // The editor may have arguments of its own: `code --wait`.
    let status = Command::new("sh").args(["-c", &format!("{editor} \"$1\""), "sh"]).arg(path).status();
    let status = status.with_context(|| format!("the editor `{editor}` cannot be started"))?;
    if !status.success() {
        bail!("the editor `{editor}` ended with {status}: nothing is done");
    }
    fs::read(path).with_context(|| format!("{} cannot be read", path.display()))
}
