//! Edits a body in the operator's own editor.

use std::env;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use millstream::Id;

/// Deletes the file when it is no longer needed: it may contain personal data.
struct Draft(PathBuf);

impl Drop for Draft {
    fn drop(&mut self) {
        // It may have been moved away.
        let _ = fs::remove_file(&self.0);
    }
}

/// The body after editing.
pub(crate) fn edit(id: Id, body: &[u8]) -> Result<Vec<u8>> {
    let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let Some(editor) = set("VISUAL").or_else(|| set("EDITOR")) else {
        bail!("no editor: set EDITOR, or use --set or --payload");
    };
    let draft = Draft(env::temp_dir().join(format!("millstream-{id}-{}.json", std::process::id())));
    let path: &Path = &draft.0;
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(body));
    written.with_context(|| format!("cannot write {}", path.display()))?;
    // The editor may have arguments of its own: `code --wait`.
    let status = Command::new("sh").args(["-c", &format!("{editor} \"$1\""), "sh"]).arg(path).status();
    let status = status.with_context(|| format!("cannot start the editor `{editor}`"))?;
    if !status.success() {
        bail!("the editor `{editor}` exited with {status}: nothing was sent");
    }
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
