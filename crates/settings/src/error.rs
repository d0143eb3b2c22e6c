//! What can be wrong with a configuration. Each message names the place, the key and the remedy.
//!
//! No message holds a secret. A value is shown only where its key is known and is no secret's, and a word that stands in
//! the place of a key only where it cannot be a value of a secret that was mistyped as a mapping.
use std::fmt;
use std::path::PathBuf;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A line of a file.
    File {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
    /// Nowhere: the value is our default.
    Default,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Why a configuration was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The file could not be read.
    #[error("cannot read configuration `{}`: give a readable file, or a folder that holds one, with --config", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder without any of the three files.
    #[error("configuration folder `{}` holds none of milvus.yaml, default.yaml, user.yaml: put one there", path.display())]
    EmptyFolder {
        /// The folder.
        path: PathBuf,
    },
    /// Not YAML, or not a mapping.
    #[error("{place}: {what}: correct the YAML")]
    Syntax {
        /// Where.
        place: Place,
        /// What the parser said.
        what: String,
    },
    /// A key we do not have, in a section where a typing error must not pass unseen.
    #[error("{place}: unknown key `{key}`: {}", meant(nearest))]
    UnknownKey {
        /// Where.
        place: Place,
        /// As written, as far as it is known to be no value.
        key: String,
        /// The keys it may have meant, best first.
        nearest: Vec<&'static str>,
    },
    /// A key that is almost one of ours.
    #[error("{place}: `{key}` is not {}: write `{right}`", one_of_ours(place))]
    NearMiss {
        /// Where.
        place: Place,
        /// As written.
        key: String,
        /// The key it must have meant.
        right: String,
    },
    /// One of our keys below a section that it does not belong to.
    #[error("{place}: `{key}` stands in the wrong section: move it to `{right}`, counted from the top of the file")]
    Nested {
        /// Where.
        place: Place,
        /// As written.
        key: String,
        /// Its right path.
        right: &'static str,
    },
    /// The same key twice, in one file.
    #[error("{place}: `{key}` was already set at {first}: keep one of the two")]
    Twice {
        /// The second place.
        place: Place,
        /// The first place.
        first: Place,
        /// The key.
        key: &'static str,
    },
    /// A value of the wrong shape or out of range.
    #[error("{place}: `{key}` is {found}, but must be {expected}")]
    Value {
        /// Where.
        place: Place,
        /// The key.
        key: &'static str,
        /// What was found, in backquotes where it may be shown; never a secret.
        found: String,
        /// What would fit.
        expected: String,
    },
    /// An empty value where an absent one would take protection away.
    #[error(
        "{place}: `{key}` is empty, which would take away what it protects: give it a value, or remove the line{}",
        also(before)
    )]
    Empty {
        /// Where.
        place: Place,
        /// The key.
        key: &'static str,
        /// An earlier layer that gives it a value.
        before: Option<Place>,
    },
    /// A key that another one makes necessary.
    #[error("`{key}` is not set, but {because}: set it")]
    Missing {
        /// The missing key.
        key: &'static str,
        /// What asks for it.
        because: String,
    },
    /// Mesh material without an answer to whether it is used.
    #[error(
        "{place}: `{key}` is set, but `common.security.internaltlsEnabled` is not: set it to true to encrypt internal traffic, or to false to say that it stays in plaintext"
    )]
    SwitchAbsent {
        /// Where the path is.
        place: Place,
        /// The path's key.
        key: &'static str,
    },
    /// A value that has its place in the design, but no code behind it yet.
    #[error("{place}: `{key}` is {value}, which is not available in this version: use `{instead}`")]
    NotAvailable {
        /// Where.
        place: Place,
        /// The key.
        key: &'static str,
        /// The value in backquotes, where it may be shown.
        value: String,
        /// What there is.
        instead: &'static str,
    },
}

fn one_of_ours(place: &Place) -> &'static str {
    if matches!(place, Place::Environment(_)) { "a variable that is read" } else { "a key" }
}

fn also(before: &Option<Place>) -> String {
    before.as_ref().map(|place| format!("; to do without it, remove it at {place} too")).unwrap_or_default()
}

fn meant(nearest: &[&'static str]) -> String {
    match nearest {
        [] => "remove it".to_owned(),
        [one] => format!("did you mean `{one}`?"),
        many => format!("the keys of this section are {}", many.join(", ")),
    }
}
