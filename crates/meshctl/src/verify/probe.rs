//! What is tried, what must be seen, and the verdict. Pure.
use std::fmt;
use std::net::SocketAddr;

use internaltls::foreign;

use super::Target;

/// One way to knock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe {
    /// HTTP/2 without TLS.
    Plaintext,
    /// TLS, and no certificate shown.
    NoCertificate,
    /// The right names, signed by a CA that is not the mesh's.
    ForeignCa,
    /// A leaf that lets a client in at the edge.
    EdgeClient,
    /// The name of another role.
    WrongSni,
    /// No name.
    NoSni,
    /// The right leaf, an older protocol.
    Tls12,
    /// The right leaf, a minute too old.
    Expired,
    /// A node of the mesh: must be served.
    RightClient,
}

impl Probe {
    /// In the order of the table.
    pub const ALL: [Self; 9] = [
        Self::Plaintext,
        Self::NoCertificate,
        Self::ForeignCa,
        Self::EdgeClient,
        Self::WrongSni,
        Self::NoSni,
        Self::Tls12,
        Self::Expired,
        Self::RightClient,
    ];
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Plaintext => "plaintext HTTP/2",
            Self::NoCertificate => "TLS without a certificate",
            Self::ForeignCa => "leaf of a foreign CA",
            Self::EdgeClient => "leaf of an edge client",
            Self::WrongSni => "SNI of another role",
            Self::NoSni => "no SNI",
            Self::Tls12 => "TLS 1.2",
            Self::Expired => "expired leaf",
            Self::RightClient => "right client",
        })
    }
}

/// What a probe saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// An alert, or the connection closed, before a byte of application data.
    Refused(String),
    /// Application data came back.
    Answered(String),
    /// The right client was told who serves it.
    Served(String),
    /// The connection stays open and nothing comes.
    Silent,
    /// Nobody accepts a connection there.
    Unreachable(String),
    /// No TLS on the connection, or something not to be taken for a refusal.
    Failed(String),
    /// The probe lacked what it needs.
    NotTried(String),
}

impl Seen {
    /// Escaped and cut: whoever answers a probe may be anybody.
    fn tamed(self) -> Self {
        match self {
            Self::Refused(text) => Self::Refused(foreign::sentence(&text)),
            Self::Answered(text) => Self::Answered(foreign::sentence(&text)),
            Self::Served(text) => Self::Served(foreign::sentence(&text)),
            Self::Silent => Self::Silent,
            Self::Unreachable(text) => Self::Unreachable(foreign::sentence(&text)),
            Self::Failed(text) => Self::Failed(foreign::sentence(&text)),
            Self::NotTried(text) => Self::NotTried(foreign::cause(&text)),
        }
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(how) => write!(f, "refused: {how}"),
            Self::Answered(how) => write!(f, "ANSWERED: {how}"),
            Self::Served(who) => write!(f, "served: {who}"),
            Self::Silent => f.write_str("neither refused nor served in time"),
            Self::Unreachable(why) => write!(f, "nobody listens: {why}"),
            Self::Failed(why) => write!(f, "failed: {why}"),
            Self::NotTried(why) => write!(f, "not tried: {why}"),
        }
    }
}

/// How it stands with a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As it must be.
    Green,
    /// Not as it must be.
    Surprise,
    /// Nobody was there to refuse or to serve: nothing is proven, and nobody was let in.
    Absent,
    /// Unknown.
    NotTried,
}

/// A line of the table.
#[derive(Debug, Clone)]
pub struct Line {
    /// Who was tried.
    pub node: String,
    /// Where.
    pub address: SocketAddr,
    /// How.
    pub probe: Probe,
    /// What came of it.
    pub seen: Seen,
    /// How it stands.
    pub verdict: Verdict,
}

impl Line {
    /// Whether an intruder had an answer: the surprise that is a hole.
    #[must_use]
    pub fn let_in(&self) -> bool {
        self.probe != Probe::RightClient && matches!(self.seen, Seen::Answered(_) | Seen::Served(_))
    }

    /// The line of `probe` against `target`.
    #[must_use]
    pub fn new(target: &Target, probe: Probe, seen: Seen) -> Self {
        let (verdict, seen) = (judge(probe, &seen), seen.tamed());
        Self { node: target.name.clone(), address: target.address, probe, seen, verdict }
    }
}

fn judge(probe: Probe, seen: &Seen) -> Verdict {
    match (probe, seen) {
        (_, Seen::NotTried(_)) => Verdict::NotTried,
        (_, Seen::Unreachable(_)) => Verdict::Absent,
        (Probe::RightClient, Seen::Served(_)) => Verdict::Green,
        (Probe::RightClient, _) => Verdict::Surprise,
        (_, Seen::Refused(_)) => Verdict::Green,
        _ => Verdict::Surprise,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_refusal_is_green_for_intruders() {
        let text = String::new;
        let surprises = [Seen::Answered(text()), Seen::Served(text()), Seen::Silent, Seen::Failed(text())];
        for probe in Probe::ALL.into_iter().filter(|probe| *probe != Probe::RightClient) {
            assert_eq!(judge(probe, &Seen::Refused(text())), Verdict::Green);
            assert_eq!(judge(probe, &Seen::NotTried(text())), Verdict::NotTried);
            for seen in &surprises {
                assert_eq!(judge(probe, seen), Verdict::Surprise, "{probe}: {seen}");
            }
        }
    }

    #[test]
    fn what_a_server_says_cannot_steer_the_terminal() {
        let target = Target {
            name: "a".into(),
            address: ([127, 0, 0, 1], 1).into(),
            role: "proxy".parse().unwrap(),
            node: None,
        };
        let said = "\u{1b}]0;owned\u{7}\n".to_owned() + &"x".repeat(70_000);
        for seen in [Seen::Refused, Seen::Answered, Seen::Served, Seen::Unreachable, Seen::Failed, Seen::NotTried] {
            let text = Line::new(&target, Probe::RightClient, seen(said.clone())).seen.to_string();
            assert!(text.contains("owned") && !text.contains(char::is_control) && text.len() < 5_000, "{text}");
        }
    }

    #[test]
    fn nobody_there_is_neither_green_nor_let_in() {
        let target = Target {
            name: "a".into(),
            address: ([127, 0, 0, 1], 1).into(),
            role: "proxy".parse().unwrap(),
            node: None,
        };
        for probe in Probe::ALL {
            let line = Line::new(&target, probe, Seen::Unreachable(String::new()));
            assert_eq!((line.verdict, line.let_in()), (Verdict::Absent, false), "{probe}");
            let answered = Line::new(&target, probe, Seen::Answered(String::new()));
            assert_eq!(answered.let_in(), probe != Probe::RightClient, "{probe}");
        }
    }

    #[test]
    fn only_service_is_green_for_the_right_client() {
        let text = String::new;
        assert_eq!(judge(Probe::RightClient, &Seen::Served(text())), Verdict::Green);
        for seen in [Seen::Refused(text()), Seen::Answered(text()), Seen::Silent, Seen::Failed(text())] {
            assert_eq!(judge(Probe::RightClient, &seen), Verdict::Surprise, "{seen}");
        }
    }
}
