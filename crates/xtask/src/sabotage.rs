//! Breaks the code on purpose and checks that a test fails. A test that passes on broken code proves nothing.
//!
//! Each patch in `sabotage/` names its test in a line `# test: <arguments of cargo test>` before the first hunk. Work is done on
//! a copy of the tree with a target folder of its own, so the tree itself is never touched.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::{cargo, obtain, root};

struct Patch {
    name: String,
    path: PathBuf,
    /// The arguments of `cargo test` that select the test.
    test: String,
}

pub(crate) fn run(only: Option<&str>) -> Result<ExitCode> {
    let root = root();
    let patches = patches(&root.join("sabotage"), only)?;
    let tree = Tree { copy: root.join("target/sabotage/tree"), root, server: obtain::nats_server()? };
    eprintln!("running the tests on the unchanged tree");
    tree.sync()?;
    for patch in &patches {
        ensure!(
            tree.test(patch, &[])?,
            "the test of {} also fails without the patch: cargo test {}",
            patch.name,
            patch.test
        );
    }
    let mut table = vec![];
    for (at, patch) in patches.iter().enumerate() {
        eprintln!("[{}/{}] {}: cargo test {}", at + 1, patches.len(), patch.name, patch.test);
        let verdict = tree.verdict(patch).unwrap_or_else(|error| format!("ERROR: {error:#}"));
        eprintln!("      {verdict}");
        table.push((&patch.name, verdict));
    }
    tree.sync()?;
    let width = table.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    println!();
    for (name, verdict) in &table {
        println!("{name:width$}  {verdict}");
    }
    Ok(if table.iter().all(|(_, verdict)| verdict == NOTICED) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

const NOTICED: &str = "noticed";

fn patches(folder: &Path, only: Option<&str>) -> Result<Vec<Patch>> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let mut patches = vec![];
    for entry in entries {
        let path = entry?.path();
        if path.extension() == Some(OsStr::new("patch")) {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let test = test_of(&fs::read_to_string(&path)?);
            let test = test.with_context(|| format!("{} has no line `# test: ...` at its head", path.display()))?;
            patches.push(Patch { name, path, test });
        }
    }
    patches.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(only) = only {
        let names: Vec<_> = patches.iter().map(|patch| patch.name.clone()).collect();
        patches.retain(|patch| patch.name == only);
        ensure!(!patches.is_empty(), "unknown sabotage `{only}`; known are {}", names.join(", "));
    }
    ensure!(!patches.is_empty(), "no patches in {}", folder.display());
    Ok(patches)
}

fn test_of(patch: &str) -> Option<String> {
    let head = patch.lines().take_while(|line| !line.starts_with("diff ") && !line.starts_with("--- "));
    head.filter_map(|line| line.strip_prefix("# test:"))
        .map(|test| test.trim().to_owned())
        .find(|test| !test.is_empty())
}

/// The tree and the copy of it that is broken.
struct Tree {
    root: PathBuf,
    copy: PathBuf,
    server: PathBuf,
}

impl Tree {
    fn verdict(&self, patch: &Patch) -> Result<String> {
        self.sync()?;
        self.apply(&patch.path)?;
        ensure!(self.test(patch, &["--no-run"])?, "the patched code does not build");
        Ok(if self.test(patch, &[])? { "NOT NOTICED: its test passes on broken code".into() } else { NOTICED.into() })
    }

    /// Makes the copy equal to the tree. What is equal is left alone, so that cargo builds only what a patch has changed.
    fn sync(&self) -> Result<()> {
        let files = self.files()?;
        for file in &files {
            let (from, to) = (self.root.join(file), self.copy.join(file));
            // A file that git knows may have been deleted in the tree.
            let Ok(content) = fs::read(&from) else { continue };
            if fs::read(&to).ok().as_ref() != Some(&content) {
                fs::create_dir_all(to.parent().context("a file is in a folder")?)?;
                fs::write(&to, content).with_context(|| format!("cannot write {}", to.display()))?;
            }
        }
        self.remove_others(&self.copy, &files)
    }

    fn files(&self) -> Result<BTreeSet<PathBuf>> {
        let args = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
        let output = Command::new("git").args(args).current_dir(&self.root).output().context("cannot run git")?;
        ensure!(output.status.success(), "git ls-files failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        let names = output.stdout.split(|&byte| byte == 0).filter(|name| !name.is_empty());
        let paths = names.map(|name| PathBuf::from(OsStr::from_bytes(name)));
        Ok(paths.filter(|path| self.root.join(path).is_file()).collect())
    }

    fn remove_others(&self, folder: &Path, files: &BTreeSet<PathBuf>) -> Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                self.remove_others(&path, files)?;
            } else if path.strip_prefix(&self.copy).is_ok_and(|name| !files.contains(name)) {
                fs::remove_file(&path)?;
            }
        }
        Ok(())
    }

    fn apply(&self, patch: &Path) -> Result<()> {
        // Inside of a repository git would look for the patched files there and pass over them in silence.
        let output = Command::new("git")
            .arg("apply")
            .arg(patch)
            .current_dir(&self.copy)
            .env("GIT_CEILING_DIRECTORIES", self.copy.parent().unwrap_or(&self.copy))
            .output()
            .context("cannot run git")?;
        if !output.status.success() {
            bail!("the patch does not apply: {}", String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; "));
        }
        Ok(())
    }

    fn test(&self, patch: &Patch, more: &[&str]) -> Result<bool> {
        let log = self.copy.with_file_name(format!("{}.log", patch.name));
        let output = fs::File::options().create(true).append(true).open(&log)?;
        let status = cargo()
            .arg("test")
            .args(more)
            .args(patch.test.split_whitespace())
            .current_dir(&self.copy)
            .env("CARGO_TARGET_DIR", self.copy.with_file_name("target"))
            .env(nats_embedded::VARIABLE, &self.server)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .status()
            .context("cannot run cargo")?;
        Ok(status.success())
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{patches, root, test_of};

    /// The code moves on, and a patch that no longer fits proves nothing.
    #[test]
    fn every_patch_applies_to_the_tree() {
        let patches = patches(&root().join("sabotage"), None).unwrap();
        for patch in patches {
            let check =
                Command::new("git").args(["apply", "--check"]).arg(&patch.path).current_dir(root()).output().unwrap();
            assert!(check.status.success(), "{}: {}", patch.name, String::from_utf8_lossy(&check.stderr));
        }
    }

    #[test]
    fn a_patch_names_its_test_before_the_first_hunk() {
        let patch = "What it breaks.\n# test: -p tests --test all no_order_is_lost\n--- a/x\n+++ b/x\n";
        assert_eq!(test_of(patch).as_deref(), Some("-p tests --test all no_order_is_lost"));
        assert_eq!(test_of("--- a/x\n# test: -p tests\n"), None);
        assert_eq!(test_of("# test:\ndiff --git a/x b/x\n"), None);
    }
}
