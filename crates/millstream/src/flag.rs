//! Reading the value of a flag or a variable.

use std::ffi::OsStr;

use clap::builder::TypedValueParser;
use clap::error::ErrorKind;
use clap::{Arg, Command};

/// A value parser whose errors name the flag and the variable, and never the value: it may hold a secret.
#[derive(Clone)]
pub(crate) struct Checked<T>(pub(crate) fn(&str) -> Result<T, String>);

impl<T: Clone + Send + Sync + 'static> TypedValueParser for Checked<T> {
    type Value = T;

    fn parse_ref(&self, command: &Command, arg: Option<&Arg>, value: &OsStr) -> Result<T, clap::Error> {
        let read = match value.to_str() {
            Some("") => Err("the value is empty".into()),
            Some(text) => (self.0)(text),
            None => Err("the value is not UTF-8".into()),
        };
        read.map_err(|wrong| {
            let flag = arg.and_then(Arg::get_long).unwrap_or_default();
            let variable = arg.and_then(Arg::get_env).unwrap_or_default().to_string_lossy();
            let text = format!("--{flag} (environment {variable}): {wrong}\n");
            clap::Error::raw(ErrorKind::ValueValidation, text).with_cmd(command)
        })
    }
}
