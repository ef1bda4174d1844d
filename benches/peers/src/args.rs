//! Options of the form `--name value`, and a few that are only a name.

use std::path::PathBuf;

pub(crate) type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

/// Options that have no value.
const FLAGS: [&str; 2] = ["quick", "resume"];

/// The options of one subcommand. Each is taken once; what is left over is a mistake.
#[derive(Debug)]
pub(crate) struct Args {
    pairs: Vec<(String, String)>,
}

impl Args {
    pub(crate) fn parse(words: impl IntoIterator<Item = String>) -> Result<Self> {
        let mut pairs = Vec::new();
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").ok_or_else(|| format!("unexpected {word:?}"))?;
            let value = match FLAGS.contains(&name) {
                true => "yes".to_owned(),
                false => words.next().ok_or_else(|| format!("--{name} needs a value"))?,
            };
            pairs.push((name.to_owned(), value));
        }
        Ok(Args { pairs })
    }

    /// Sets an option that was not given.
    pub(crate) fn set_default(&mut self, name: &str, value: &str) {
        if !self.pairs.iter().any(|(given, _)| given == name) {
            self.pairs.push((name.to_owned(), value.to_owned()));
        }
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.pairs.iter().position(|(n, _)| n == name)?;
        Some(self.pairs.swap_remove(at).1)
    }

    /// A count such as `10M` or `64k`.
    pub(crate) fn count(&mut self, name: &str, default: u64) -> Result<u64> {
        self.take(name).map_or(Ok(default), |text| count(&text))
    }

    /// Counts separated by commas.
    pub(crate) fn counts(&mut self, name: &str, default: &str) -> Result<Vec<u64>> {
        let text = self.take(name).unwrap_or_else(|| default.to_owned());
        text.split(',').map(count).collect()
    }

    /// Words separated by commas; `none` is no word.
    pub(crate) fn words(&mut self, name: &str, default: &str) -> Vec<String> {
        let text = self.take(name).unwrap_or_else(|| default.to_owned());
        text.split(',').filter(|w| !w.is_empty() && *w != "none").map(str::to_owned).collect()
    }

    pub(crate) fn text(&mut self, name: &str, default: &str) -> String {
        self.take(name).unwrap_or_else(|| default.to_owned())
    }

    /// `yes` or `no`.
    pub(crate) fn flag(&mut self, name: &str) -> Result<bool> {
        match self.take(name).as_deref() {
            None | Some("no") => Ok(false),
            Some("yes") => Ok(true),
            Some(other) => Err(format!("--{name} is yes or no, not {other:?}").into()),
        }
    }

    pub(crate) fn path(&mut self, name: &str) -> Option<PathBuf> {
        self.take(name).map(PathBuf::from)
    }

    /// Where stores are made: on the disk of this crate's build by default, not in a temporary
    /// directory that may be memory.
    pub(crate) fn data_dir(&mut self) -> Result<PathBuf> {
        let dir = self.path("dir").unwrap_or_else(|| PathBuf::from("target/peers-data"));
        std::fs::create_dir_all(&dir)?;
        Ok(dir)
    }

    /// Refuses options that nobody has taken.
    pub(crate) fn finish(self) -> Result<()> {
        match self.pairs.first() {
            None => Ok(()),
            Some((name, _)) => Err(format!("unknown option --{name}").into()),
        }
    }
}

pub(crate) fn count(text: &str) -> Result<u64> {
    let (digits, unit) = match text.as_bytes().last() {
        Some(b'k') => (&text[..text.len() - 1], 1_000),
        Some(b'M') => (&text[..text.len() - 1], 1_000_000),
        Some(b'B') => (&text[..text.len() - 1], 1_000_000_000),
        _ => (text, 1),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is not a count such as 10M"))?;
    Ok(number * unit)
}

/// The way back from [`count`].
pub(crate) fn shown(count: u64) -> String {
    match count {
        n if n >= 1_000_000_000 && n % 1_000_000_000 == 0 => format!("{}B", n / 1_000_000_000),
        n if n >= 1_000_000 && n % 1_000_000 == 0 => format!("{}M", n / 1_000_000),
        n if n >= 1_000 && n % 1_000 == 0 => format!("{}k", n / 1_000),
        n => n.to_string(),
    }
}
