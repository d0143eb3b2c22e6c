//! Why a call was not carried out, and how each edge tells it.
//!
//! 1. A [`Refusal`] is the caller's matter: gRPC OK with a `Status` inside, HTTP 200 with a code. Its number and the
//!    legacy number beside it are those Milvus clients branch on; its text is what users compare.
//! 2. What is not built is gRPC UNIMPLEMENTED, which no client retries. It is never a wrong success.
//! 3. A node that cannot be reached is gRPC UNAVAILABLE, which clients retry after connecting anew.
//! 4. A text is bounded where it is made, whatever of a caller's request or of a node's answer stands in it.
use std::fmt;

use internaltls::foreign;
use rpc::common;

/// The numbers that stand in `Status.code`, with the legacy enum each belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    CollectionNotFound,
    CollectionNotLoaded,
    SchemaMismatch,
    PartitionNotFound,
    IndexNotFound,
    IndexDuplicate,
    DatabaseNotFound,
    InvalidParameter,
    MissingParameter,
    Unexpected,
}

impl Code {
    pub(crate) fn number(self) -> i32 {
        match self {
            Self::CollectionNotFound => 100,
            Self::CollectionNotLoaded => 101,
            Self::SchemaMismatch => 109,
            Self::PartitionNotFound => 200,
            Self::IndexNotFound => 700,
            Self::IndexDuplicate => 702,
            Self::DatabaseNotFound => 800,
            Self::InvalidParameter => 1100,
            Self::MissingParameter => 1101,
            Self::Unexpected => 65_535,
        }
    }

    fn legacy(self) -> common::ErrorCode {
        match self {
            Self::CollectionNotFound => common::ErrorCode::CollectionNotExists,
            Self::SchemaMismatch => common::ErrorCode::SchemaMismatch,
            Self::PartitionNotFound => common::ErrorCode::MetaFailed,
            Self::IndexNotFound => common::ErrorCode::IndexNotExist,
            Self::InvalidParameter | Self::MissingParameter => common::ErrorCode::IllegalArgument,
            _ => common::ErrorCode::UnexpectedError,
        }
    }

    fn blames_input(self) -> bool {
        !matches!(self, Self::CollectionNotLoaded | Self::Unexpected)
    }
}

/// What the caller asked for cannot be done, and asking again changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Code,
    pub(crate) reason: String,
}

impl Refusal {
    pub(crate) fn status(&self) -> common::Status {
        let mut status = common::Status {
            code: self.code.number(),
            reason: self.reason.clone(),
            detail: self.reason.clone(),
            ..Default::default()
        };
        status.set_error_code(self.code.legacy());
        if self.code.blames_input() {
            status.extra_info.insert("is_input_error".into(), "true".into());
        }
        status
    }
}

/// Why a call was not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Error {
    Refused(Refusal),
    /// Names the call or the feature.
    Unbuilt(String),
    /// Names the node.
    Unavailable(String),
}

pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn refused(code: Code, reason: impl Into<String>) -> Self {
        Self::Refused(Refusal { code, reason: foreign::sentence(&reason.into()) })
    }

    pub(crate) fn invalid(reason: impl Into<String>) -> Self {
        Self::refused(Code::InvalidParameter, reason)
    }

    pub(crate) fn unbuilt(feature: impl fmt::Display) -> Self {
        Self::Unbuilt(format!("{} is not implemented", foreign::name(&feature.to_string())))
    }

    /// What a retry may cure; the text names the node.
    pub(crate) fn unavailable(reason: impl AsRef<str>) -> Self {
        Self::Unavailable(foreign::sentence(reason.as_ref()))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => f.write_str(&refusal.reason),
            Self::Unbuilt(text) | Self::Unavailable(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {}
