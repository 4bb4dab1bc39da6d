//! What is wrong with a file, where, and what to do about it.

use std::fmt;
use std::path::{Path, PathBuf};

/// A place in a text; both count from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The line.
    pub line: u32,
    /// The character of the line.
    pub column: u32,
}

/// Whether a problem holds something back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// What it stands in is not used.
    Error,
    /// It is used, and may not be what was meant.
    Warning,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// As it was given.
    pub file: PathBuf,
    /// `None` where it is the whole file.
    pub place: Option<Place>,
    /// Whether it holds something back.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

/// Everything that one reading found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// One problem of a whole file.
    #[must_use]
    pub fn of_file(file: &Path, message: String, hint: Option<&str>) -> Self {
        let hint = hint.map(str::to_owned);
        Self(vec![Problem { file: file.to_owned(), place: None, severity: Severity::Error, message, hint }])
    }

    /// One more.
    pub fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    /// All of another reading too.
    pub fn merge(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// In the order of their places.
    pub fn sort(&mut self) {
        self.0.sort_by(|one, other| (&one.file, one.place).cmp(&(&other.file, other.place)));
    }

    /// One after another.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }

    /// How many hold something back.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.iter().filter(|problem| problem.severity == Severity::Error).count()
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl std::error::Error for Problems {}

impl Problem {
    /// Where it is and what, for who has an event of their own to put it into.
    #[must_use]
    pub fn in_a_line(&self) -> String {
        format!("{}: {}", self.file.display(), self.message)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(Place { line, column }) = self.place {
            write!(f, "{line}:{column}:")?;
        }
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, " {severity}: {}", self.message)?;
        self.hint.as_ref().map_or(Ok(()), |hint| write!(f, "\n  hint: {hint}"))
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|problem| writeln!(f, "{problem}"))
    }
}
