//! `--name value` pairs.

use std::collections::BTreeMap;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

/// Where Debian's package puts it.
const SERVER: &str = "postgres://postgres@127.0.0.1:5432/test";

pub(crate) struct Args(BTreeMap<String, String>);

impl Args {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> Result<Self> {
        let mut pairs = BTreeMap::new();
        while let Some(word) = words.next() {
            let Some(name) = word.strip_prefix("--") else { bail!("not an option: {word}") };
            let value = words.next().with_context(|| format!("--{name} needs a value"))?;
            pairs.insert(name.to_owned(), value);
        }
        Ok(Args(pairs))
    }

    pub(crate) fn number<T: FromStr>(&self, name: &str, default: T) -> Result<T> {
        match self.0.get(name).map(|text| (text, text.parse())) {
            None => Ok(default),
            Some((_, Ok(number))) => Ok(number),
            Some((text, Err(_))) => bail!("--{name} {text} is not a number"),
        }
    }

    pub(crate) fn text(&self, name: &str) -> Result<&str> {
        self.0.get(name).map(String::as_str).with_context(|| format!("--{name} is missing"))
    }

    pub(crate) fn server(&self) -> &str {
        self.0.get("server").map_or(SERVER, String::as_str)
    }

    pub(crate) fn mark(&self) -> Result<Mark> {
        match self.0.get("mark").map_or("inside", String::as_str) {
            "inside" => Ok(Mark::Inside),
            "outside" => Ok(Mark::Outside),
            other => bail!("--mark {other} is neither inside nor outside"),
        }
    }
}

/// Where the key is marked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// In the transaction of the booking.
    Inside,
    /// After it: to see that the campaign notices.
    Outside,
}

impl Mark {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Mark::Inside => "inside",
            Mark::Outside => "outside",
        }
    }
}
