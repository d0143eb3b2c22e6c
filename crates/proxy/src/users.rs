//! Who may call: a name and a password, on top of TLS.
//!
//! 1. With authorization on, every call of both edges bears credentials, Connect included. A client certificate says
//!    which machine calls, not who: it never stands in for the password.
//! 2. With authorization off, credentials are not looked at.
//! 3. gRPC bears base64 of `user:password` without a scheme; REST `Bearer user:password` in the clear, or HTTP Basic.
//! 4. Comparison takes the same time wherever two texts differ.
use std::fmt;
use std::hint::black_box;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const ROOT: &str = "root";

/// What credentials are held against. Its `Debug` shows no password.
#[derive(Clone)]
pub enum Users {
    /// Nobody is asked.
    Open,
    /// `root` and its password.
    Root(String),
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if matches!(self, Self::Open) { "Open" } else { "Root(***)" })
    }
}

/// Why a call was turned away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    Missing,
    Wrong,
}

impl Denied {
    pub(crate) fn message(self) -> &'static str {
        match self {
            Self::Missing => "missing authorization in header",
            Self::Wrong => "auth check failure, please check username and password are correct",
        }
    }
}

impl Users {
    /// Checks the `authorization` metadata of a gRPC call.
    pub(crate) fn check_grpc(&self, authorization: Option<&str>) -> Result<(), Denied> {
        self.check(authorization, |token| decoded(token.trim()))
    }

    /// Checks the `Authorization` header of a REST call.
    pub(crate) fn check_rest(&self, authorization: Option<&str>) -> Result<(), Denied> {
        self.check(authorization, |header| match header.trim().split_once(' ') {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("bearer") => Some(rest.trim().to_owned()),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("basic") => decoded(rest.trim()),
            _ => None,
        })
    }

    fn check(&self, header: Option<&str>, read: impl FnOnce(&str) -> Option<String>) -> Result<(), Denied> {
        let Self::Root(password) = self else { return Ok(()) };
        let header = header.filter(|header| !header.trim().is_empty()).ok_or(Denied::Missing)?;
        let wanted = format!("{ROOT}:{password}");
        match read(header) {
            Some(sent) if equal(sent.as_bytes(), wanted.as_bytes()) => Ok(()),
            _ => Err(Denied::Wrong),
        }
    }
}

fn decoded(token: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(token).ok()?).ok()
}

/// Looks at every byte of what was sent, whatever the first ones say.
fn equal(sent: &[u8], wanted: &[u8]) -> bool {
    let at = |index: usize| wanted.get(index % wanted.len().max(1)).copied().unwrap_or_default();
    let differing =
        sent.iter().enumerate().fold(0, |differing, (index, byte)| black_box(differing | (byte ^ at(index))));
    (differing == 0) & (sent.len() == wanted.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root() -> Users {
        Users::Root("Milvus".into())
    }

    #[test]
    fn grpc_takes_base64_without_a_scheme() {
        let token = STANDARD.encode("root:Milvus");
        assert_eq!(root().check_grpc(Some(&token)), Ok(()));
        assert_eq!(root().check_grpc(Some(&format!("Bearer {token}"))), Err(Denied::Wrong));
        assert_eq!(root().check_grpc(Some("root:Milvus")), Err(Denied::Wrong));
        assert_eq!(root().check_grpc(None), Err(Denied::Missing));
    }

    #[test]
    fn rest_takes_bearer_and_basic() {
        assert_eq!(root().check_rest(Some("Bearer root:Milvus")), Ok(()));
        assert_eq!(root().check_rest(Some(&format!("basic {}", STANDARD.encode("root:Milvus")))), Ok(()));
        assert_eq!(root().check_rest(Some("root:Milvus")), Err(Denied::Wrong));
        assert_eq!(root().check_rest(Some("")), Err(Denied::Missing));
    }

    #[test]
    fn only_the_exact_credentials_pass() {
        for wrong in
            ["root:milvus", "root:Milvu", "root:MilvusMilvus", "root:", "Root:Milvus", ":", "root:Milvusroot:Milvus"]
        {
            assert_eq!(root().check_rest(Some(&format!("Bearer {wrong}"))), Err(Denied::Wrong), "{wrong}");
        }
    }

    #[test]
    fn nobody_is_asked_when_open() {
        assert_eq!(Users::Open.check_grpc(None), Ok(()));
        assert_eq!(Users::Open.check_rest(Some("Bearer nonsense")), Ok(()));
    }

    #[test]
    fn debug_shows_no_password() {
        assert_eq!(format!("{:?}", root()), "Root(***)");
    }
}
