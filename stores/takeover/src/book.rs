//! What an owner writes down of its work: a line before each call and one after it. A line is one write call,
//! so it outlives the process.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Of so many keys from there on.
    Observe(u64),
    Forget,
}

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// The store is open, and vouches for everything since then.
    Opened { at: i64, vouches_since: i64 },
    /// A call for this key begins.
    Begun { at: i64, call: Call, key: u64 },
    /// A letter a key: new, duplicate; forgotten: true, false. Or an `e` for an error.
    Ended { at: i64, answers: String },
    /// What was acknowledged until then is at the authority.
    Written { through: i64 },
    /// It was closed, and everything was written.
    Closed,
}

/// Nanoseconds of the wall clock, which nobody sets meanwhile.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

pub(crate) struct Book(File);

impl Book {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        Ok(Book(File::options().create_new(true).append(true).open(path)?))
    }

    pub(crate) fn write(&mut self, line: &Line) -> Result<()> {
        let text = match line {
            Line::Opened { at, vouches_since } => format!("opened {at} {vouches_since}\n"),
            Line::Begun { at, call: Call::Observe(keys), key } => {
                format!("observe {at} {key} {keys}\n")
            }
            Line::Begun { at, call: Call::Forget, key } => format!("forget {at} {key}\n"),
            Line::Ended { at, answers } => format!("ended {at} {answers}\n"),
            Line::Written { through } => format!("written {through}\n"),
            Line::Closed => "closed\n".to_owned(),
        };
        Ok(self.0.write_all(text.as_bytes())?)
    }
}

/// All whole lines of a book; none where there is no book yet.
pub(crate) fn read(path: &Path) -> Result<Vec<Line>> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(|line| parse(line).with_context(|| line.to_owned())).collect()
}

fn parse(line: &str) -> Result<Line> {
    let words: Vec<&str> = line.split(' ').collect();
    let number = |at: usize| -> Result<i64> { Ok(words.get(at).context("cut off")?.parse()?) };
    let key = |at: usize| -> Result<u64> { Ok(words.get(at).context("cut off")?.parse()?) };
    Ok(match words[0] {
        "opened" => Line::Opened { at: number(1)?, vouches_since: number(2)? },
        "observe" => Line::Begun { at: number(1)?, call: Call::Observe(key(3)?), key: key(2)? },
        "forget" => Line::Begun { at: number(1)?, call: Call::Forget, key: key(2)? },
        "ended" => {
            let answers = words.get(2).context("cut off")?;
            Line::Ended { at: number(1)?, answers: (*answers).to_owned() }
        }
        "written" => Line::Written { through: number(1)? },
        "closed" => Line::Closed,
        other => bail!("no such line: {other}"),
    })
}
