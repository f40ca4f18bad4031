//! The program as `cargo xtask` runs it.

use std::process::{Command, Output};

#[expect(clippy::unwrap_used, reason = "a test")]
fn simulation(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_simulation")).args(args).output().unwrap()
}

#[test]
fn it_says_how_many_seeds_were_run_and_how_it_is_used() {
    let run = simulation(&["--seeds", "3", "--from", "7"]);
    assert!(run.status.success(), "{run:?}");
    assert!(String::from_utf8_lossy(&run.stdout).starts_with("3 of 3 seeds, "), "{run:?}");
    assert!(simulation(&["--orders", "3"]).status.success());
    for wrong in [&["--seeds"][..], &["--seeds", "many"], &["--order", "3"]] {
        let run = simulation(wrong);
        assert_eq!(run.status.code(), Some(2), "{run:?}");
        assert!(String::from_utf8_lossy(&run.stderr).starts_with("usage: simulation "), "{run:?}");
    }
}
