//! The list of deliberate breaks of the engine: what is edited, and which test has to notice.

/// The lists: their names, and their texts.
pub(crate) const LISTS: [(&str, &str); 5] = [
    ("verdicts", include_str!("../../campaigns/breaks/verdicts.txt")),
    ("recovery", include_str!("../../campaigns/breaks/recovery.txt")),
    ("values", include_str!("../../campaigns/breaks/values.txt")),
    ("owners", include_str!("../../campaigns/breaks/owners.txt")),
    ("futures", include_str!("../../campaigns/breaks/futures.txt")),
];

/// One edit of one file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Break {
    /// The list that it stands in.
    pub(crate) list: &'static str,
    pub(crate) name: String,
    /// A number of the contract, or a durability level.
    pub(crate) promise: String,
    pub(crate) file: String,
    /// Arguments of `cargo test`, or the name of a model after `models`.
    pub(crate) test: String,
    /// What stands in the file once, and what takes its place.
    pub(crate) old: String,
    pub(crate) new: String,
}

impl Break {
    /// `text` with the break in it; an error says why that cannot be.
    pub(crate) fn apply(&self, text: &str) -> Result<String, String> {
        match text.matches(&self.old).count() {
            1 => Ok(text.replacen(&self.old, &self.new, 1)),
            count => Err(format!("{}: its lines stand {count} times in {}", self.name, self.file)),
        }
    }
}

/// All breaks of the lists, in order.
pub(crate) fn all() -> Vec<Break> {
    let mut breaks: Vec<Break> = Vec::new();
    let lines = LISTS.iter().flat_map(|(list, text)| text.lines().map(move |line| (*list, line)));
    for (list, line) in lines {
        if let Some(name) = line.strip_prefix('[') {
            let name = name.strip_suffix(']').unwrap_or(name).to_owned();
            breaks.push(Break { list, name, ..Break::default() });
        }
        let Some(last) = breaks.last_mut() else { continue };
        if let Some(promise) = line.strip_prefix("promise: ") {
            promise.clone_into(&mut last.promise);
        } else if let Some(file) = line.strip_prefix("file: ") {
            file.clone_into(&mut last.file);
        } else if let Some(test) = line.strip_prefix("test: ") {
            test.clone_into(&mut last.test);
        } else if let Some(old) = line.strip_prefix('-') {
            last.old += &format!("{old}\n");
        } else if let Some(new) = line.strip_prefix('+') {
            last.new += &format!("{new}\n");
        }
    }
    breaks
}
