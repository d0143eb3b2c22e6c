//! Why a REST call was not carried out: the service's errors, and those of REST alone.
use axum::http::StatusCode;
use axum::http::header::{ACCEPT, ACCEPT_ENCODING, ALLOW, HeaderName, HeaderValue};
use internaltls::foreign;

use crate::error::{Code, Error};

/// A failed call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    NotFound,
    Unauthenticated,
    Timeout,
    /// The methods that are served instead, as in `Allow`.
    Method(&'static str),
    /// The content type that was sent instead of JSON.
    Type(String),
    /// The content coding that was sent.
    Encoding(String),
    /// The handler panicked.
    Panicked,
    /// 1801: no JSON, or JSON of another type than the field has.
    BadJson(String),
    /// 1802: a field that must be there is not.
    Missing(String),
    /// 1804: rows that do not fit the collection.
    BadRows(String),
    /// 1806: a key of another kind than the collection's.
    BadKey(String),
    Api(Error),
}

pub(super) type Outcome<T> = Result<T, Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Api(error)
    }
}

impl Failure {
    pub(super) fn bad_json(reason: impl Into<String>) -> Self {
        Self::BadJson(reason.into())
    }

    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::Type(_) | Self::Encoding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Panicked => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Api(Error::Unbuilt(_)) => StatusCode::NOT_IMPLEMENTED,
            _ => StatusCode::OK,
        }
    }

    pub(super) fn code(&self) -> i32 {
        match self {
            Self::NotFound => 404,
            Self::Method(_) => 405,
            Self::Panicked => Code::Unexpected.number(),
            Self::Unauthenticated => 1800,
            Self::Timeout => 10_001,
            Self::BadJson(_) | Self::Type(_) | Self::Encoding(_) => 1801,
            Self::Missing(_) => 1802,
            Self::BadRows(_) => 1804,
            Self::BadKey(_) => 1806,
            Self::Api(Error::Refused(refusal)) => refusal.code.number(),
            Self::Api(Error::Unbuilt(_)) => 10,
            Self::Api(Error::Unavailable(_)) => 2,
        }
    }

    /// What the answer's head says of what would be taken instead (RFC 9110 sections 15.5.6 and 15.5.16).
    pub(super) fn header(&self) -> Option<(HeaderName, HeaderValue)> {
        match self {
            Self::Method(allowed) => Some((ALLOW, HeaderValue::from_static(allowed))),
            Self::Type(_) => Some((ACCEPT, HeaderValue::from_static("application/json"))),
            Self::Encoding(_) => Some((ACCEPT_ENCODING, HeaderValue::from_static("identity"))),
            _ => None,
        }
    }

    /// Bounded, whatever the caller sent.
    pub(super) fn message(&self) -> String {
        foreign::sentence(&self.text())
    }

    fn text(&self) -> String {
        match self {
            Self::NotFound => "404 page not found".into(),
            Self::Unauthenticated => "user hasn't authenticated".into(),
            Self::Timeout => "request timeout".into(),
            Self::Method(allowed) => format!("this call takes {}", allowed.replace(", ", " or ")),
            Self::Type(sent) => format!(
                "can only accept json format request, error: the content type is {sent}; send Content-Type: application/json"
            ),
            Self::Encoding(sent) => format!(
                "can only accept json format request, error: the content encoding is `{sent}`; send the body as it is, without Content-Encoding"
            ),
            Self::Panicked => "the server failed to answer this call; its log tells why".into(),
            Self::BadJson(reason) => format!("can only accept json format request, error: {reason}"),
            Self::Missing(name) => format!("missing required parameters, error: `{name}` is required"),
            Self::BadRows(reason) => format!("fail to deal the insert data, error: {reason}"),
            Self::BadKey(reason) => format!("fail to convert the primary key, error: {reason}"),
            Self::Api(error) => error.to_string(),
        }
    }
}
