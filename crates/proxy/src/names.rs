//! Names of collections, partitions, fields, indexes and databases. Pure.
//!
//! 1. A name is 1 to 255 of `A-Z a-z 0-9 _`, beginning with a letter or `_`, as in Milvus. It is checked in every call that
//!    bears it, before any other node hears of it: a name that cannot exist costs its own call and nothing else.
//! 2. A name in an error is cut, so that what is wrong with it is still there to be read.
use internaltls::foreign;

use crate::error::{Code, Error, Result};

/// The one database there is.
pub(crate) const DEFAULT_DATABASE: &str = "default";
/// The one partition a collection has.
pub(crate) const DEFAULT_PARTITION: &str = "_default";

const LONGEST: usize = 255;

/// A collection's name.
pub(crate) fn check_collection(name: &str) -> Result<()> {
    check("collection", name)
}

/// A field's name.
pub(crate) fn check_field(name: &str) -> Result<()> {
    check("field", name)
}

/// An index's name.
pub(crate) fn check_index(name: &str) -> Result<()> {
    check("index", name)
}

/// A name that narrows a question; empty is any.
pub(crate) fn check_if_named(check: fn(&str) -> Result<()>, name: &str) -> Result<()> {
    if name.is_empty() { Ok(()) } else { check(name) }
}

/// The database meant: empty is the default one, and no other exists.
pub(crate) fn check_database(name: &str) -> Result<()> {
    if name.is_empty() || name == DEFAULT_DATABASE {
        Ok(())
    } else {
        let name = foreign::name(name);
        Err(Error::refused(Code::DatabaseNotFound, format!("database not found[database={name}]")))
    }
}

/// Partitions named by a read or a write: empty means any, and none but the default one exists.
pub(crate) fn check_partitions<'a>(names: impl IntoIterator<Item = &'a String>) -> Result<()> {
    match names.into_iter().find(|name| !name.is_empty() && *name != DEFAULT_PARTITION) {
        None => Ok(()),
        Some(name) => {
            check("partition", name)?;
            Err(Error::refused(Code::PartitionNotFound, format!("partition not found[partition={name}]")))
        }
    }
}

fn check(what: &str, name: &str) -> Result<()> {
    let fault = if name.is_empty() {
        format!("{what} name should not be empty")
    } else if name.len() > LONGEST {
        format!("the length of a {what} name must be less than {LONGEST} characters")
    } else if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        format!("the first character of a {what} name must be an underscore or letter")
    } else if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        format!("{what} name can only contain numbers, letters and underscores")
    } else {
        return Ok(());
    };
    Err(Error::invalid(format!("Invalid {what} name: {}. {fault}", foreign::name(name))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_letters_digits_underscores() {
        for good in ["a", "_x1", "Digits_2"] {
            assert_eq!(check_collection(good), Ok(()), "{good}");
        }
        for bad in ["", "1a", "a-b", "é", "a b", &"x".repeat(256)] {
            assert!(check_collection(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_the_default_database_and_partition() {
        assert!(check_database("").is_ok() && check_database("default").is_ok() && check_database("other").is_err());
        assert!(check_partitions(&["_default".to_owned()]).is_ok());
        let code = |name: &str| match check_partitions(&[name.to_owned()]) {
            Err(Error::Refused(refusal)) => refusal.code,
            other => panic!("{other:?}"),
        };
        assert_eq!((code("p1"), code("p-1")), (Code::PartitionNotFound, Code::InvalidParameter));
    }

    #[test]
    fn long_names_leave_the_reason_readable() {
        for check in [check_collection, check_field, check_index] {
            let error = check(&"x".repeat(200 << 10)).unwrap_err().to_string();
            assert!(error.len() < 1024 && error.ends_with("must be less than 255 characters"), "{error}");
        }
        assert!(check_database(&"x".repeat(200 << 10)).unwrap_err().to_string().len() < 1024);
        assert_eq!(check_collection(&"x".repeat(255)), Ok(()));
    }
}
