//! Writes the boards and the rules into the workspace: `cargo xtask dashboards`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (name, board) in boards::dashboards() {
        write(&root.join(format!("grafana/dashboards/{name}.json")), &boards::text(&board))?;
    }
    write(&root.join("deploy/prometheus/rules.yml"), &boards::rules::file())
}

fn write(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().context("a file has a folder")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{}", path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(path).display());
    Ok(())
}
