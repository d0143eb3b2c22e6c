//! A CA bundle: certificates one after the other, with the comments before them. Pure.
use std::path::Path;

use anyhow::{Context, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use internaltls::inspect;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

const END: &str = "-----END CERTIFICATE-----";

/// The text of a bundle, a certificate an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle(Vec<Entry>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    text: String,
    sha256: String,
}

impl Bundle {
    /// Reads PEM.
    ///
    /// # Errors
    /// When it holds no certificate, or what only looks like one.
    pub fn parse(pem: &str) -> anyhow::Result<Self> {
        let certificates = inspect::certificates_in(Path::new("ca.pem"), pem.as_bytes())?;
        let blocks = pem.split_inclusive(END).filter(|block| block.ends_with(END));
        let entries = blocks.map(Entry::parse).collect::<Option<Vec<_>>>().unwrap_or_default();
        let read = entries.iter().map(|entry| entry.sha256.clone());
        let entries = if read.eq(certificates.iter().map(|der| fingerprint(der))) {
            entries
        } else {
            // Written in a way of its own (indented, CR line ends): written again, without comments.
            certificates.iter().map(|der| Entry::of(der)).collect()
        };
        ensure!(
            !entries.is_empty(),
            "it holds no certificate; it must hold PEM blocks that begin with -----BEGIN CERTIFICATE-----"
        );
        Ok(Self(entries))
    }

    /// One certificate, DER in hex, as a status document tells it.
    ///
    /// # Errors
    /// When it is no hex.
    pub fn of_hex(der: &str) -> anyhow::Result<Self> {
        let digits: Option<Vec<u32>> = der.chars().map(|digit| digit.to_digit(16)).collect();
        let digits = digits.filter(|digits| !digits.is_empty() && digits.len() % 2 == 0).context("it is no hex")?;
        let bytes = digits.chunks(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]));
        let der = bytes.collect::<Result<Vec<_>, _>>()?;
        Self::parse(&crate::certs::der::pem("CERTIFICATE", &der))
    }

    /// The SHA-256 of each certificate, lower-case hex, in their order.
    #[must_use]
    pub fn fingerprints(&self) -> Vec<&str> {
        self.0.iter().map(|entry| entry.sha256.as_str()).collect()
    }

    /// The first certificate's: of a folder with a key beside it, the one that signs.
    #[must_use]
    pub fn signer(&self) -> &str {
        self.0.first().map_or("", |entry| &entry.sha256)
    }

    /// The first certificate, DER.
    ///
    /// # Errors
    /// When there is none left.
    pub fn signer_der(&self) -> anyhow::Result<CertificateDer<'static>> {
        let first = self.0.first().context("the bundle is empty")?;
        Ok(CertificateDer::from_pem_slice(first.text.as_bytes())?)
    }

    /// Whether this certificate is in it.
    #[must_use]
    pub fn holds(&self, sha256: &str) -> bool {
        self.0.iter().any(|entry| entry.sha256 == sha256)
    }

    /// Both, what is in this one first, nothing twice.
    #[must_use]
    pub fn and(mut self, more: &Self) -> Self {
        for entry in &more.0 {
            if !self.holds(&entry.sha256) {
                self.0.push(entry.clone());
            }
        }
        self
    }

    /// Without this certificate.
    #[must_use]
    pub fn without(mut self, sha256: &str) -> Self {
        self.0.retain(|entry| entry.sha256 != sha256);
        self
    }

    /// The first certificate alone.
    #[must_use]
    pub fn first(mut self) -> Self {
        self.0.truncate(1);
        self
    }

    /// As it goes into a file.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.iter().map(|entry| format!("{}\n", entry.text)).collect()
    }
}

impl Entry {
    fn parse(block: &str) -> Option<Self> {
        let text = block.trim().to_owned();
        let der = CertificateDer::from_pem_slice(text.as_bytes()).ok()?;
        Some(Self { sha256: fingerprint(&der), text })
    }

    fn of(der: &[u8]) -> Self {
        Self { text: crate::certs::der::pem("CERTIFICATE", der).trim_end().to_owned(), sha256: fingerprint(der) }
    }
}

/// SHA-256 of a certificate, lower-case hex, as a status document tells it.
#[must_use]
pub fn fingerprint(der: &[u8]) -> String {
    digest(&SHA256, der).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certs::authority::{Authority, KeyKind};

    fn ca(name: &str) -> String {
        Authority::create(name, KeyKind::EcP256, time::OffsetDateTime::now_utc()).unwrap().cert_pem().to_owned()
    }

    #[test]
    fn adding_twice_is_adding_once() {
        let (old, new) = (Bundle::parse(&ca("old")).unwrap(), Bundle::parse(&ca("new")).unwrap());
        let both = old.clone().and(&new);
        assert_eq!(both.fingerprints(), [old.signer(), new.signer()]);
        assert_eq!(both.clone().and(&new), both);
        assert_eq!(Bundle::parse(&both.pem()).unwrap(), both);
    }

    #[test]
    fn taking_one_out_leaves_the_others_and_their_comments() {
        let (old, new) = (ca("old"), ca("new"));
        let both = Bundle::parse(&format!("# the old one\n{old}# a partner's\n{new}# the end\n")).unwrap();
        let old = Bundle::parse(&old).unwrap();
        let left = both.without(old.signer());
        assert_eq!(left.pem(), format!("# a partner's\n{new}"));
        assert!(!left.holds(old.signer()));
    }

    #[test]
    fn a_certificate_comes_back_from_hex() {
        let ca = Bundle::parse(&ca("one")).unwrap();
        let hex: String = ca.signer_der().unwrap().iter().map(|byte| format!("{byte:02X}")).collect();
        assert_eq!(Bundle::of_hex(&hex).unwrap().signer(), ca.signer());
        for text in ["", "abc", "zz"] {
            Bundle::of_hex(text).unwrap_err();
        }
    }

    /// What a process reads of a bundle is what is written back.
    #[test]
    fn no_way_to_write_pem_loses_a_ca() {
        let (old, new) = (ca("old"), ca("new"));
        let whole = Bundle::parse(&format!("{old}{new}")).unwrap();
        let indented: String = new.lines().map(|line| format!("  {line}\n")).collect();
        for text in [
            format!("{old}{indented}"),
            format!("{}{new}", old.replace('\n', "\r")),
            format!("{}{new}", old.trim_end()),
            format!("{old}{}", new.replace("CERTIFICATE", "X509 CERTIFICATE")),
        ] {
            let read = Bundle::parse(&text).unwrap();
            assert_eq!(read.fingerprints(), whole.fingerprints(), "{text}");
            assert_eq!(Bundle::parse(&read.pem()).unwrap().fingerprints(), whole.fingerprints());
        }
        Bundle::parse(&format!("{old}{}", new.replace("CERTIFICATE", "TRUSTED CERTIFICATE"))).unwrap_err();
    }

    #[test]
    fn what_is_no_certificate_is_told() {
        let broken = "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n";
        for text in ["", "no certificate", broken] {
            Bundle::parse(text).unwrap_err();
        }
    }
}
